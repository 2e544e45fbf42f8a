//! A disk that crashes and fails as told.
//!
//! Every file and every name exists twice: as the running process sees it, and as it would be after a power cut. A fault comes in two
//! kinds: the call did nothing (`Lost`), or did all it should and reported an error all the same (`Done`).

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::Path;
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

#[derive(Clone)]
enum Node {
    File { live: Vec<u8>, durable: Vec<u8> },
    Folder { live: Names, durable: Names },
}

type Names = BTreeMap<String, usize>;

/// A tree: node 0 is the root folder. A folder that is renamed takes along what is in it.
struct State {
    nodes: Vec<Node>,
    plan: Plan,
    calls: u64,
    syncs: u64,
    /// Renames from one folder to another that are not durable: file systems commit both names at once, so syncing either syncs both.
    moved: Vec<(usize, usize)>,
    folder_syncs: u64,
    appends: u64,
}

impl Default for State {
    fn default() -> Self {
        let root = Node::Folder { live: Names::new(), durable: Names::new() };
        Self { nodes: vec![root], plan: Plan::Nothing, calls: 0, syncs: 0, moved: Vec::new(), folder_syncs: 0, appends: 0 }
    }
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
        let after = |node: &Node| match node {
            Node::Folder { live, durable } => {
                let names = if left == Left::Nothing { durable } else { live };
                Node::Folder { live: names.clone(), durable: names.clone() }
            }
            Node::File { live, durable } => {
                let content = match left {
                    Left::Nothing => durable.clone(),
                    Left::Half if live.starts_with(durable) => live[..usize::midpoint(durable.len(), live.len())].to_vec(),
                    Left::Half | Left::Everything => live.clone(),
                };
                Node::File { live: content.clone(), durable: content }
            }
        };
        let new = State { nodes: old.nodes.iter().map(after).collect(), ..State::default() };
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
        let names = path.iter().filter(|name| *name != "/").map(|name| name.to_str().unwrap());
        names.into_iter().try_fold(0, |folder, name| match &self.nodes[folder] {
            Node::Folder { live, .. } => live.get(name).copied().ok_or_else(|| ErrorKind::NotFound.into()),
            Node::File { .. } => Err(ErrorKind::NotADirectory.into()),
        })
    }

    /// The folder that holds a name, and the name.
    fn holder(&self, path: &Path) -> io::Result<(usize, String)> {
        Ok((self.find(path.parent().unwrap())?, path.file_name().unwrap().to_str().unwrap().to_owned()))
    }

    fn names(&mut self, folder: usize) -> &mut Names {
        match &mut self.nodes[folder] {
            Node::Folder { live, .. } => live,
            Node::File { .. } => panic!("not a folder"),
        }
    }

    fn bytes(&self, file: usize) -> &Vec<u8> {
        match &self.nodes[file] {
            Node::File { live, .. } => live,
            Node::Folder { .. } => panic!("not a file"),
        }
    }

    fn bytes_mut(&mut self, file: usize) -> &mut Vec<u8> {
        match &mut self.nodes[file] {
            Node::File { live, .. } => live,
            Node::Folder { .. } => panic!("not a file"),
        }
    }

    /// Gives the name to a node, if it is free.
    fn enter(&mut self, path: &Path, node: usize) -> io::Result<()> {
        let (folder, name) = self.holder(path)?;
        match self.names(folder).insert(name, node) {
            None => Ok(()),
            Some(taken) => {
                self.names(folder).insert(path.file_name().unwrap().to_str().unwrap().to_owned(), taken);
                Err(ErrorKind::AlreadyExists.into())
            }
        }
    }

    fn used(&self) -> u64 {
        let mut used = 0;
        let mut left = vec![0];
        while let Some(node) = left.pop() {
            match &self.nodes[node] {
                Node::File { live, .. } => used += live.len() as u64,
                Node::Folder { live, .. } => left.extend(live.values()),
            }
        }
        used
    }

    fn sync_names(&mut self, folder: usize) {
        if let Node::Folder { live, durable } = &mut self.nodes[folder] {
            durable.clone_from(live);
        }
    }

    fn make_folders(&mut self, path: &Path) {
        if path.parent().is_none() || self.find(path).is_ok() {
            return;
        }
        self.make_folders(path.parent().unwrap());
        self.nodes.push(Node::Folder { live: Names::new(), durable: Names::new() });
        let (node, (folder, name)) = (self.nodes.len() - 1, self.holder(path).unwrap());
        if let Node::Folder { live, durable } = &mut self.nodes[folder] {
            live.insert(name.clone(), node);
            durable.insert(name, node);
        }
    }
}

struct Open {
    disk: FakeDisk,
    inode: usize,
}

impl Disk for FakeDisk {
    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let mut state = self.state();
        let folder = state.find(folder)?;
        Ok(state.names(folder).keys().cloned().collect())
    }

    fn read(&self, path: &Path, from: u64, at_most: usize) -> io::Result<Vec<u8>> {
        let state = self.state();
        let bytes = state.bytes(state.find(path)?);
        let rest = bytes.get(usize::try_from(from).unwrap()..).unwrap_or_default();
        Ok(rest[..at_most.min(rest.len())].to_vec())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn Tail>> {
        let inode = self.change(|state| {
            state.nodes.push(Node::File { live: Vec::new(), durable: Vec::new() });
            let node = state.nodes.len() - 1;
            state.enter(path, node)?;
            Ok(node)
        })?;
        Ok(Box::new(Open { disk: self.clone(), inode }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Tail>> {
        let inode = self.state().find(path)?;
        Ok(Box::new(Open { disk: self.clone(), inode }))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(|state| {
            let node = state.find(from)?;
            state.enter(to, node)
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(|state| {
            let node = state.find(from)?;
            let ((old, name), (new, new_name)) = (state.holder(from)?, state.holder(to)?);
            if matches!(state.nodes[node], Node::Folder { .. }) && state.names(new).contains_key(&new_name) {
                return Err(ErrorKind::DirectoryNotEmpty.into());
            }
            state.names(old).remove(&name);
            state.names(new).insert(new_name, node);
            if old != new {
                state.moved.push((old, new));
            }
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(|state| {
            state.find(path)?;
            let (folder, name) = state.holder(path)?;
            state.names(folder).remove(&name);
            Ok(())
        })
    }

    fn seal(&self, path: &Path) -> io::Result<()> {
        self.change(|state| state.find(path).map(drop))
    }

    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        if self.state().find(folder).is_ok() {
            return Ok(());
        }
        self.change(|state| {
            state.make_folders(folder);
            Ok(())
        })
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.change(|state| {
            state.folder_syncs += 1;
            let folder = state.find(folder)?;
            let act = |state: &mut State| {
                state.sync_names(folder);
                for (old, new) in std::mem::take(&mut state.moved) {
                    if old == folder || new == folder {
                        state.sync_names(old);
                        state.sync_names(new);
                    } else {
                        state.moved.push((old, new));
                    }
                }
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
                    state.bytes_mut(inode).extend_from_slice(&bytes[..taken]);
                    return Ok(taken);
                }
                Plan::Full(limit) => usize::try_from(limit.saturating_sub(state.used())).unwrap().min(bytes.len()),
                _ => bytes.len(),
            };
            if room == 0 && !bytes.is_empty() {
                return Err(ErrorKind::StorageFull.into());
            }
            state.bytes_mut(inode).extend_from_slice(&bytes[..room]);
            Ok(room)
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        let inode = self.inode;
        self.disk.change(|state| {
            state.syncs += 1;
            let act = |state: &mut State| {
                if let Node::File { live, durable } = &mut state.nodes[inode] {
                    durable.clone_from(live);
                }
                Ok(())
            };
            match state.plan {
                Plan::Sync(number, fault) if state.syncs == number => fail(fault, state, act),
                _ => act(state),
            }
        })
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.state().bytes(self.inode).len() as u64)
    }

    fn truncate(&mut self, size: u64) -> io::Result<()> {
        let inode = self.inode;
        self.disk.change(|state| {
            state.bytes_mut(inode).truncate(usize::try_from(size).unwrap());
            Ok(())
        })
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        Ok(self.disk.state().find(path).is_ok_and(|node| node == self.inode))
    }
}
