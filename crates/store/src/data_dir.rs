//! The data directory: one owner at a time, and the secret that belongs to it.

use adtally_model::{Error, IdentityKey, Result};
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A data directory that this process owns until the value is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Takes a data directory, creating it where it is missing.
    ///
    /// # Errors
    /// Fenced when another process owns it, a user error when it cannot be created.
    pub fn own(path: &Path) -> Result<DataDir> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(path)
            .map_err(|e| Error::user(format!("the data directory {} cannot be created", path.display())).because(e))?;
        let lock_path = path.join("LOCK");
        let mut lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&lock_path)
            .map_err(|e| Error::user(format!("the lock {} cannot be opened", lock_path.display())).because(e))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut owner = String::new();
            // Only a hint for the message: an unreadable one is as good as none.
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

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The identity key kept in it; made from `fresh` when there is none yet.
    ///
    /// # Errors
    /// Corrupt when the file is not a key, external when it cannot be read or written.
    pub fn identity_key(&self, fresh: [u8; 16]) -> Result<IdentityKey> {
        let path = self.path.join("identity.key");
        match read_key(&path)? {
            Some(key) => Ok(key),
            None => {
                write_key(&path, &self.path, fresh)
                    .map_err(|e| Error::external(format!("{} cannot be written", path.display())).because(e))?;
                Ok(IdentityKey::new(fresh))
            }
        }
    }
}

/// Reads the key of a data directory without owning it.
///
/// # Errors
/// Corrupt when the file is not a key.
pub fn read_key(path: &Path) -> Result<Option<IdentityKey>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::external(format!("{} cannot be read", path.display())).because(e)),
    };
    let damaged = || {
        Error::corrupt(format!(
            "{} should hold 32 hexadecimal digits: restore it from a backup; without it, copies of earlier clicks cannot be \
             recognised",
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

    #[test]
    fn the_key_is_made_once_and_kept_secret() {
        let folder = tempfile::tempdir().unwrap();
        let owner = DataDir::own(folder.path()).unwrap();
        let made = owner.identity_key([1; 16]).unwrap();
        assert_eq!(owner.identity_key([2; 16]).unwrap(), made);
        assert_eq!(made, IdentityKey::new([1; 16]));
        let path = folder.path().join("identity.key");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        for damaged in ["", "12", "zz112233445566778899aabbccddeeff", "+0112233445566778899aabbccddeeff"] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(owner.identity_key([3; 16]).unwrap_err().kind(), ErrorKind::Corrupt, "{damaged:?}");
        }
    }
}
