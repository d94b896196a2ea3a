//! Linux inotify: see inotify(7).
//!
//! It is polled a few times a second and has no thread of its own: the kernel merges consecutive equal events while
//! they wait, so a log that is written 10,000 times a second costs a few events.

use super::access::{Change, FileKind, FileStat, FolderWatch, WatchId};
use rustix::fd::OwnedFd;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use std::ffi::OsString;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

/// Bytes read at a time: some hundred events.
const BUFFER_BYTES: usize = 16 * 1024;

/// Maximum events per call: twice the kernel's default queue length, so that a busy folder cannot hold up the caller.
const EVENTS_MAX: usize = 32_768;

/// File systems that other machines write to, or for which inotify reports nothing (statfs(2)).
const REMOTE: [i64; 8] = [
    0x6969,      // NFS
    0x517b,      // SMB
    0xff53_4d42, // CIFS
    0xfe53_4d42, // SMB2
    0x6573_5546, // FUSE
    0x0102_1997, // 9P
    0x00c3_6400, // Ceph
    0x7461_636f, // OCFS2
];

/// An inotify instance.
#[derive(Debug)]
pub(super) struct Inotify(OwnedFd);

impl Inotify {
    /// `None` if the system has no more instances (`fs.inotify.max_user_instances`).
    pub(super) fn new() -> Option<Inotify> {
        inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok().map(Inotify)
    }
}

fn is_remote(folder: &Path) -> bool {
    rustix::fs::statfs(folder).map_or(true, |facts| REMOTE.contains(&facts.f_type))
}

impl FolderWatch for Inotify {
    fn add(&mut self, folder: &Path) -> Option<WatchId> {
        if is_remote(folder) {
            return None;
        }
        let flags = WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        inotify::add_watch(&self.0, folder, flags).ok().map(WatchId)
    }

    fn remove(&mut self, id: WatchId) {
        // The kernel may have removed it already.
        let _ = inotify::remove_watch(&self.0, id.0);
    }

    fn covers(&self, path: &Path, stat: &FileStat) -> bool {
        (stat.kind != FileKind::File || stat.links <= 1) && !self.is_link(path)
    }

    fn is_link(&self, path: &Path) -> bool {
        std::fs::symlink_metadata(path).is_ok_and(|data| data.is_symlink())
    }

    fn changes(&mut self, changes: &mut Vec<Change>) {
        let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
        let mut reader = Reader::new(&self.0, &mut buffer);
        for _ in 0..EVENTS_MAX {
            // No more events, or an error that is treated alike.
            let Ok(event) = reader.next() else { return };
            let (id, flags) = (WatchId(event.wd()), event.events());
            let name = event.file_name().map(|name| OsString::from_vec(name.to_bytes().to_vec()));
            changes.push(if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                Change::Overflow
            } else if flags.intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::IGNORED) {
                Change::Folder(id)
            } else {
                match name {
                    Some(name) if flags.intersects(ReadFlags::MODIFY | ReadFlags::ATTRIB) => Change::Content(id, name),
                    Some(name) => Change::Entry(id, name),
                    None => Change::Folder(id),
                }
            });
        }
        changes.push(Change::Overflow);
    }
}
