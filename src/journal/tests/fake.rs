//! A disk that crashes and fails as told.
//!
//! Every file and every name exists twice: as the running process sees it, and as it would be after a power cut. A fault comes in two
//! kinds: the call did nothing (`Lost`), or did all it should and reported an error all the same (`Done`).

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::journal::disk::{Disk, Tail};

/// What a failing call did before it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Lost,
    Done,
}

/// What a power cut leaves of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    Nothing,
    /// All names, and of each file the first half of what was appended to it.
    Half,
    Everything,
}

/// Which calls fail.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Plan {
    #[default]
    Nothing,
    /// This call and every later one: a crash.
    From(u64, Fault),
    /// This call alone, of whatever kind.
    Once(u64, Fault),
    /// Only the sync with this number, of contents.
    Sync(u64, Fault),
    /// Only the sync with this number, of a folder.
    FolderSync(u64, Fault),
    /// The first append takes so many bytes and no more, without an error.
    Short(usize),
    /// As [`Plan::Short`], and then this call fails.
    ShortThen(usize, u64, Fault),
    /// Files take no more than so many bytes in all, until something is removed.
    Full(u64),
}

#[derive(Clone, Default)]
struct Inode {
    live: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Default)]
struct State {
    inodes: Vec<Inode>,
    live: BTreeMap<PathBuf, usize>,
    durable: BTreeMap<PathBuf, usize>,
    plan: Plan,
    calls: u64,
    syncs: u64,
    folder_syncs: u64,
    appends: u64,
}

#[derive(Clone, Default)]
pub(super) struct FakeDisk {
    state: Arc<Mutex<State>>,
    /// How many calls came, those included that wait for a disk that is held.
    arrived: Arc<AtomicU64>,
}

impl FakeDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Until this is dropped, no call returns.
    pub(super) fn hold(&self) -> impl Sized + '_ {
        self.state()
    }

    pub(super) fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::SeqCst)
    }

    pub(super) fn plan(&self, plan: Plan) {
        let mut state = self.state();
        (state.plan, state.calls, state.syncs, state.folder_syncs, state.appends) = (plan, 0, 0, 0, 0);
    }

    pub(super) fn syncs(&self) -> u64 {
        self.state().syncs
    }

    pub(super) fn calls(&self) -> u64 {
        self.state().calls
    }

    /// The disk after a power cut.
    pub(super) fn after_crash(&self, left: Left) -> Self {
        let old = self.state();
        let names = if left == Left::Nothing { &old.durable } else { &old.live };
        let content = |inode: &Inode| match left {
            Left::Nothing => inode.durable.clone(),
            Left::Half if inode.live.starts_with(&inode.durable) => {
                inode.live[..usize::midpoint(inode.durable.len(), inode.live.len())].to_vec()
            }
            Left::Half | Left::Everything => inode.live.clone(),
        };
        let inodes = old.inodes.iter().map(|inode| Inode { live: content(inode), durable: content(inode) }).collect();
        let new = State { inodes, live: names.clone(), durable: names.clone(), ..State::default() };
        Self { state: Arc::new(Mutex::new(new)), arrived: Arc::default() }
    }

    pub(super) fn content(&self, path: &Path) -> Vec<u8> {
        self.read(path, 0, usize::MAX).unwrap()
    }

    /// Does `act` unless the plan says otherwise.
    fn change<T>(&self, act: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        self.arrived.fetch_add(1, Ordering::SeqCst);
        let mut state = self.state();
        state.calls += 1;
        match state.plan {
            Plan::From(call, _) if state.calls > call => Err(io::Error::other("the machine has crashed")),
            Plan::From(call, fault) | Plan::Once(call, fault) | Plan::ShortThen(_, call, fault) if state.calls == call => {
                fail(fault, &mut state, act)
            }
            _ => act(&mut state),
        }
    }
}

fn fail<T>(fault: Fault, state: &mut State, act: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
    if fault == Fault::Done {
        act(state)?;
    }
    Err(io::Error::other(format!("injected fault, {fault:?}")))
}

impl State {
    fn find(&self, path: &Path) -> io::Result<usize> {
        self.live.get(path).copied().ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn used(&self) -> u64 {
        self.live.values().map(|inode| self.inodes[*inode].live.len() as u64).sum()
    }
}

struct Open {
    disk: FakeDisk,
    inode: usize,
}

impl Disk for FakeDisk {
    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        let names = state.live.keys().filter(|path| path.parent() == Some(folder));
        Ok(names.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect())
    }

    fn read(&self, path: &Path, from: u64, at_most: usize) -> io::Result<Vec<u8>> {
        let state = self.state();
        let bytes = &state.inodes[state.find(path)?].live;
        let rest = bytes.get(usize::try_from(from).unwrap()..).unwrap_or_default();
        Ok(rest[..at_most.min(rest.len())].to_vec())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn Tail>> {
        let inode = self.change(|state| {
            if state.live.contains_key(path) {
                return Err(ErrorKind::AlreadyExists.into());
            }
            state.inodes.push(Inode::default());
            let inode = state.inodes.len() - 1;
            state.live.insert(path.to_owned(), inode);
            Ok(inode)
        })?;
        Ok(Box::new(Open { disk: self.clone(), inode }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Tail>> {
        let inode = self.state().find(path)?;
        Ok(Box::new(Open { disk: self.clone(), inode }))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(|state| {
            let inode = state.find(from)?;
            if state.live.contains_key(to) {
                return Err(ErrorKind::AlreadyExists.into());
            }
            state.live.insert(to.to_owned(), inode);
            Ok(())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(|state| {
            let inode = state.find(from)?;
            state.live.remove(from);
            state.live.insert(to.to_owned(), inode);
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(|state| {
            state.find(path)?;
            state.live.remove(path);
            Ok(())
        })
    }

    fn seal(&self, path: &Path) -> io::Result<()> {
        self.change(|state| state.find(path).map(drop))
    }

    fn make_folder(&self, _folder: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.change(|state| {
            state.folder_syncs += 1;
            let act = |state: &mut State| {
                state.durable.retain(|path, _| path.parent() != Some(folder));
                let names: Vec<_> =
                    state.live.iter().filter(|(path, _)| path.parent() == Some(folder)).map(|(p, i)| (p.clone(), *i)).collect();
                state.durable.extend(names);
                Ok(())
            };
            match state.plan {
                Plan::FolderSync(number, fault) if state.folder_syncs == number => fail(fault, state, act),
                _ => act(state),
            }
        })
    }
}

impl Tail for Open {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let inode = self.inode;
        self.disk.change(|state| {
            state.appends += 1;
            let room = match state.plan {
                Plan::Short(taken) | Plan::ShortThen(taken, ..) if state.appends == 1 => {
                    state.inodes[inode].live.extend_from_slice(&bytes[..taken]);
                    return Ok(taken);
                }
                Plan::Full(limit) => usize::try_from(limit.saturating_sub(state.used())).unwrap().min(bytes.len()),
                _ => bytes.len(),
            };
            if room == 0 && !bytes.is_empty() {
                return Err(ErrorKind::StorageFull.into());
            }
            state.inodes[inode].live.extend_from_slice(&bytes[..room]);
            Ok(room)
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        let inode = self.inode;
        self.disk.change(|state| {
            state.syncs += 1;
            let act = |state: &mut State| {
                state.inodes[inode].durable = state.inodes[inode].live.clone();
                Ok(())
            };
            match state.plan {
                Plan::Sync(number, fault) if state.syncs == number => fail(fault, state, act),
                _ => act(state),
            }
        })
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.state().inodes[self.inode].live.len() as u64)
    }

    fn truncate(&mut self, size: u64) -> io::Result<()> {
        let inode = self.inode;
        self.disk.change(|state| {
            state.inodes[inode].live.truncate(usize::try_from(size).unwrap());
            Ok(())
        })
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        Ok(self.disk.state().live.get(path) == Some(&self.inode))
    }
}
