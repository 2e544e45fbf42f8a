//! Where a command remembers something if no configuration says it.
//!
//! In scope: the user's state folder (XDG Base Directory Specification), and making a folder that nobody else can reach. Out of scope: the
//! daemon's state folder, which its configuration names.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// `$XDG_STATE_HOME/claviger`, or `~/.local/state/claviger`; `None` if the environment names no home.
#[expect(clippy::disallowed_methods, reason = "config is one of the three places that read the environment")]
pub fn user_state() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let states = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
    Some(states?.join("claviger"))
}

/// Makes the folder, with mode 0700, unless it is there.
///
/// # Errors
///
/// What the system says, with the path; a folder in which others can change files is refused.
pub fn private_folder(path: &Path) -> io::Result<()> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(named)?;
    let mode = fs::metadata(path).map_err(named)?.mode() & 0o7777;
    if mode & 0o022 != 0 {
        return Err(io::Error::other(format!("{} has mode {mode:04o}: others can change what is in it; make it 0700", path.display())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_folder_is_made_for_its_owner_alone_and_found_again() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a/b");
        private_folder(&folder).unwrap();
        private_folder(&folder).unwrap();
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o770)).unwrap();
        assert!(private_folder(&folder).unwrap_err().to_string().contains("0770"));
    }
}
