//! The data directory: it has one owner at a time, and contains the deployment's secret key.

use crate::durable::create_folder;
use adtally_model::{Error, IdentityKey, Result};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The name of the file with the identity key.
pub(crate) const KEY_FILE: &str = "identity.key";

/// A data directory that this process owns until the value is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Takes ownership of a data directory, and creates it if it is missing.
    ///
    /// # Errors
    /// Fenced when another process owns it; a user error when its path leads through a file; otherwise external when it
    /// cannot be created or locked: permissions, a full disk, a read-only mount.
    pub fn own(path: &Path) -> Result<DataDir> {
        create_folder(path, 0o750, true)
            .map_err(|e| unusable(format!("the data directory {} cannot be created", path.display()), e))?;
        let lock_path = path.join("LOCK");
        let mut lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&lock_path)
            .map_err(|e| unusable(format!("the lock {} cannot be opened", lock_path.display()), e))?;
        if let Err(error) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            if error != Errno::WOULDBLOCK {
                let message =
                    format!("the lock {} cannot be taken: the file system must support locks", lock_path.display());
                return Err(Error::external(message).because(error));
            }
            let mut owner = String::new();
            // The owner is only a hint for the message, so read errors are ignored.
            let _ = lock.read_to_string(&mut owner);
            return Err(Error::fenced(format!(
                "the data directory {} is in use by another adtally process{}: stop it, or name another --data-dir",
                path.display(),
                if owner.trim().is_empty() { String::new() } else { format!(" (pid {})", owner.trim()) }
            )));
        }
        lock.set_len(0)
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(|e| Error::external(format!("the lock {} cannot be written", lock_path.display())).because(e))?;
        Ok(DataDir { path: path.to_path_buf(), _lock: lock })
    }

    /// The path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the identity key in the directory. If there is none, creates it from `fresh`, but only if the epoch log
    /// has no record: with a key other than the log's, duplicates could not be recognised.
    ///
    /// # Errors
    /// Corrupt when the file is not a key, or is missing beside a log; external when it cannot be read or written.
    pub fn identity_key(&self, fresh: [u8; 16], log_is_empty: bool) -> Result<IdentityKey> {
        let path = key_path(&self.path);
        match read_key(&self.path)? {
            Some(key) => Ok(key),
            None if log_is_empty => {
                write_key(&path, &self.path, fresh)
                    .map_err(|e| Error::external(format!("{} cannot be written", path.display())).because(e))?;
                Ok(IdentityKey::new(fresh))
            }
            None => Err(Error::corrupt(format!(
                "{} is missing, and the epoch log was written with a key: restore the file from a backup, or configure \
                 identity.key if the key was configured before",
                path.display()
            ))),
        }
    }
}

/// A path that cannot be a folder is a user error; any other failure is external.
fn unusable(message: String, error: std::io::Error) -> Error {
    use std::io::ErrorKind::{AlreadyExists, InvalidFilename, IsADirectory, NotADirectory};
    let mistaken = matches!(error.kind(), AlreadyExists | InvalidFilename | IsADirectory | NotADirectory);
    if mistaken { Error::user(message).because(error) } else { Error::external(message).because(error) }
}

fn key_path(data_dir: &Path) -> PathBuf {
    data_dir.join(KEY_FILE)
}

/// Reads the key of a data directory without owning it. Returns `None` if there is no key.
///
/// # Errors
/// Corrupt when the file is not a key.
pub fn read_key(data_dir: &Path) -> Result<Option<IdentityKey>> {
    let path = key_path(data_dir);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::external(format!("{} cannot be read", path.display())).because(e)),
    };
    let damaged = || {
        Error::corrupt(format!(
            "{} must contain 32 hexadecimal digits: restore it from a backup; without it, duplicates of earlier \
             clicks cannot be recognised",
            path.display()
        ))
    };
    let hex = text.trim();
    if hex.len() != 32 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(damaged());
    }
    let number = u128::from_str_radix(hex, 16).map_err(|_| damaged())?;
    Ok(Some(IdentityKey::new(number.to_be_bytes())))
}

fn write_key(path: &Path, folder: &Path, key: [u8; 16]) -> std::io::Result<()> {
    let temporary = path.with_extension("key.new");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
    writeln!(file, "{:032x}", u128::from_be_bytes(key))?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use adtally_model::ErrorKind;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_data_directory_has_one_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let owner = DataDir::own(&path).unwrap();
        let refused = DataDir::own(&path).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Fenced);
        assert!(refused.to_string().contains(&std::process::id().to_string()), "{refused}");
        drop(owner);
        assert!(DataDir::own(&path).is_ok());
    }

    /// A refusal by the machine is not a user error. The test uses a dead symbolic link because it is refused to every
    /// user, including root.
    #[test]
    fn what_the_machine_refuses_is_external() {
        let folder = tempfile::tempdir().unwrap();
        let check = |path: &str, expected: ErrorKind| {
            let refused = DataDir::own(&folder.path().join(path)).unwrap_err();
            assert_eq!(refused.kind(), expected, "{refused}");
        };
        fs::create_dir(folder.path().join("data")).unwrap();
        std::os::unix::fs::symlink("missing/LOCK", folder.path().join("data/LOCK")).unwrap();
        check("data", ErrorKind::External);
        fs::write(folder.path().join("file"), "").unwrap();
        check("file", ErrorKind::User);
        check("file/data", ErrorKind::User);
        let denied = unusable("the lock".into(), std::io::ErrorKind::PermissionDenied.into());
        assert_eq!(denied.kind(), ErrorKind::External);
    }

    #[test]
    fn the_key_is_made_once_and_kept_secret() {
        let folder = tempfile::tempdir().unwrap();
        let owner = DataDir::own(folder.path()).unwrap();
        let made = owner.identity_key([1; 16], true).unwrap();
        assert_eq!(owner.identity_key([2; 16], false).unwrap(), made);
        assert_eq!(made, IdentityKey::new([1; 16]));
        let path = folder.path().join("identity.key");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        for damaged in ["", "12", "zz112233445566778899aabbccddeeff", "+0112233445566778899aabbccddeeff"] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(owner.identity_key([3; 16], true).unwrap_err().kind(), ErrorKind::Corrupt, "{damaged:?}");
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(owner.identity_key([4; 16], false).unwrap_err().kind(), ErrorKind::Corrupt);
        assert!(!path.exists(), "no key is made beside a log");
    }
}
