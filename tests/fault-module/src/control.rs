//! The control socket: one JSON object per line in, one per line out.
//!
//! In scope: the socket and its threads. Out of scope: what is asked (`command.rs`) and done (`perform.rs`).

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, chmod, unlink};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen as start_listening, socket_with};
use serde_json::json;

use crate::perform::answer;

/// The longest line that is read, in bytes: far longer than any command.
const LONGEST_LINE: u64 = 64 * 1024;
/// The most connections at one time; one more is told so and closed.
const MOST_CONNECTIONS: usize = 16;

/// Makes the socket, for its owner alone. A socket that nobody listens at any more is replaced.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        if UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there"));
        }
        unlink(path)?;
    }
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    // Nobody can connect before the socket listens, so nobody can before this.
    chmod(path, Mode::RUSR | Mode::WUSR)?;
    start_listening(&socket, i32::try_from(MOST_CONNECTIONS).unwrap_or(1))?;
    Ok(UnixListener::from(socket))
}

/// Serves the socket on threads of its own, for the life of the process.
pub(crate) fn serve(listener: UnixListener) -> io::Result<()> {
    let name = |name: &str| std::thread::Builder::new().name(name.to_owned());
    name("fault-control").spawn(move || {
        let places = Arc::new(());
        for connection in listener.incoming().filter_map(Result::ok) {
            if Arc::strong_count(&places) > MOST_CONNECTIONS {
                let _ = writeln!(&connection, "{}", json!({ "ok": false, "error": "too many connections" }));
                continue;
            }
            let place = Arc::clone(&places);
            // Without a thread the connection is closed, which its client sees.
            let _ = name("fault-command").spawn(move || {
                let _ = converse(&connection);
                drop(place);
            });
        }
    })?;
    Ok(())
}

fn converse(connection: &UnixStream) -> io::Result<()> {
    let mut reader = BufReader::new(connection);
    let mut writer = connection;
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(());
        }
        // The socket may be there a moment before the module is.
        let Some(module) = crate::module() else { return Ok(()) };
        let whole = line.ends_with(b"\n") || u64::try_from(read).is_ok_and(|read| read < LONGEST_LINE);
        let answer = match std::str::from_utf8(&line) {
            _ if !whole => {
                // Its client is still writing, and would miss an answer on a connection that is closed.
                reader.skip_until(b'\n')?;
                json!({ "ok": false, "error": format!("the line is longer than {LONGEST_LINE} bytes") })
            }
            Ok(text) => answer(module, text),
            Err(_) => json!({ "ok": false, "error": "the line is not UTF-8" }),
        };
        writeln!(writer, "{answer}")?;
    }
}
