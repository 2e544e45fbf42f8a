//! Secrets from files: a path goes in, the value comes out when it is needed.
//!
//! In scope: PINs, tokens and the like, and the refusal of files that others can read. Out of scope: watching for changes, and secrets in
//! the environment or on the command line (never). Errors and `Debug` name the file, never its content.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::fs::OFlags;
use secrecy::SecretString;
use zeroize::Zeroizing;

/// The longest secret: PINs and tokens are far shorter, and a wrong path must not be read into memory.
pub const LONGEST_SECRET: usize = 4096;

/// Group and others: no bit of these may be set on a secret's file.
const SHARED: u32 = 0o077;
/// Others alone. The service manager grants a unit's user access to a credential by an access-control list, whose mask shows up in the
/// group's bits; so those say nothing within a credentials directory.
const OTHERS: u32 = 0o007;

/// A file that holds one secret. It is read anew at each use, so that a changed secret is seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretFile {
    path: PathBuf,
    credentials: Option<PathBuf>,
    projected: bool,
}

/// Why a secret was not read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be opened or read; a symbolic link is not followed outside a credentials directory.
    #[error("the secret in {path} cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not a regular file.
    #[error("{0} is not a regular file, so no secret is read from it")]
    NotAFile(PathBuf),
    /// Others than the owner may read or change it.
    #[error("{path} has mode {mode:04o}: others than its owner can reach it; make it 0400")]
    Shared {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The content is not a secret.
    #[error("{0} must hold one line of UTF-8 text of 1 to 4096 bytes")]
    Content(PathBuf),
}

impl SecretFile {
    /// A secret in `path`. If that lies below `credentials`, the directory in which the service manager puts credentials, symbolic links are
    /// followed as long as they stay below it.
    pub fn new(path: impl Into<PathBuf>, credentials: Option<&Path>) -> Self {
        Self { path: path.into(), credentials: credentials.map(Path::to_owned), projected: false }
    }

    /// A secret that the platform projects into this container, and into no other: Kubernetes puts a link to the newest token there, and makes
    /// it readable by everybody within unless the pod says who runs (Kubernetes: "service account token volume projection").
    pub fn projected(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), credentials: None, projected: true }
    }

    /// Where the secret is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the secret; one newline at its end is not part of it.
    pub fn read(&self) -> Result<SecretString, SecretError> {
        let unreadable = |source| SecretError::Read { path: self.path.clone(), source };
        let (file, forbidden) = self.open().map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(SecretError::NotAFile(self.path.clone()));
        }
        if metadata.mode() & forbidden != 0 {
            return Err(SecretError::Shared { path: self.path.clone(), mode: metadata.mode() & 0o7777 });
        }
        // Room for everything that is read, so that no copy is left behind by growing; one byte more than allowed shows what is too long.
        let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST_SECRET + 2));
        let limit = u64::try_from(LONGEST_SECRET + 2).unwrap_or(u64::MAX);
        file.take(limit).read_to_end(&mut bytes).map_err(unreadable)?;
        let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let text = std::str::from_utf8(line).ok().filter(|text| (1..=LONGEST_SECRET).contains(&text.len()) && !text.contains('\n'));
        text.map(SecretString::from).ok_or_else(|| SecretError::Content(self.path.clone()))
    }

    /// Opens the file, and says which permission bits must not be set on it.
    fn open(&self) -> io::Result<(File, u32)> {
        let open = |path: &Path| {
            // NONBLOCK, because a named pipe in place of the file must not hang the caller.
            let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)
        };
        if self.projected {
            return Ok((open(&fs::canonicalize(&self.path)?)?, 0));
        }
        let climbs = self.path.components().any(|part| part == Component::ParentDir);
        match &self.credentials {
            Some(credentials) if !climbs && self.path.starts_with(credentials) => {
                let (target, below) = (fs::canonicalize(&self.path)?, fs::canonicalize(credentials)?);
                if !target.starts_with(&below) {
                    return Err(io::Error::other("it is a link that leaves the credentials directory"));
                }
                Ok((open(&target)?, OTHERS))
            }
            _ => Ok((open(&self.path)?, SHARED)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use secrecy::ExposeSecret as _;

    use super::*;

    fn write(path: &Path, content: &[u8], mode: u32) {
        fs::write(path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn one_newline_is_trimmed_and_the_value_is_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pin");
        for (content, value) in [(&b"12 34\n"[..], "12 34"), (b"1234", "1234"), (b"1234\r\n", "1234\r")] {
            write(&path, content, 0o600);
            let secret = SecretFile::new(&path, None).read().unwrap();
            assert_eq!(secret.expose_secret(), value);
            assert!(!format!("{secret:?}").contains("1234"));
        }
    }

    #[test]
    fn what_others_can_reach_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pin");
        for mode in [0o440, 0o404, 0o420, 0o644, 0o660] {
            let _ = fs::remove_file(&path);
            write(&path, b"1234", mode);
            let error = SecretFile::new(&path, None).read().unwrap_err();
            assert!(matches!(error, SecretError::Shared { .. }), "{mode:o}");
            assert!(!error.to_string().contains("1234"));
        }
    }

    #[test]
    fn links_are_followed_within_the_credentials_directory_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (credentials, outside) = (dir.path().join("credentials"), dir.path().join("outside"));
        fs::create_dir(&credentials).unwrap();
        write(&outside, b"out", 0o400);
        write(&credentials.join("real"), b"in", 0o440);
        symlink("real", credentials.join("pin")).unwrap();
        symlink(&outside, credentials.join("leaves")).unwrap();
        let read = |path: &Path, credentials: Option<&Path>| SecretFile::new(path, credentials).read();
        assert_eq!(read(&credentials.join("pin"), Some(&credentials)).unwrap().expose_secret(), "in");
        assert!(matches!(read(&credentials.join("pin"), None), Err(SecretError::Read { .. })));
        assert!(matches!(read(&credentials.join("leaves"), Some(&credentials)), Err(SecretError::Read { .. })));
        assert_eq!(read(&credentials.join("../outside"), Some(&credentials)).unwrap().expose_secret(), "out");
    }

    #[test]
    fn what_the_platform_projects_is_a_link_that_all_can_read() {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("data"), b"jwt", 0o644);
        symlink("data", dir.path().join("token")).unwrap();
        assert_eq!(SecretFile::projected(dir.path().join("token")).read().unwrap().expose_secret(), "jwt");
        assert!(SecretFile::new(dir.path().join("token"), None).read().is_err());
        assert!(matches!(SecretFile::projected(dir.path()).read(), Err(SecretError::NotAFile(_))));
    }

    #[test]
    fn empty_long_binary_and_two_line_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pin");
        let long = vec![b'1'; LONGEST_SECRET + 1];
        for content in [&b""[..], b"\n", b"12\n34", b"12\n\n", b"\xff\xfe", &long] {
            write(&path, content, 0o600);
            assert!(matches!(SecretFile::new(&path, None).read(), Err(SecretError::Content(_))));
        }
        assert!(matches!(SecretFile::new(dir.path(), None).read(), Err(SecretError::NotAFile(_))));
        write(&path, &long[1..], 0o600);
        assert!(SecretFile::new(&path, None).read().is_ok());
    }
}
