//! One loaded PKCS#11 library: exactly one instance for each canonical path, for the life of the process.
//!
//! In scope: loading, `C_Initialize`, and initialising again after a device was lost. Out of scope: tokens, logins, keys. Nothing here runs
//! at exit: the library is left as it is, because `C_Finalize` under a live call is undefined (PKCS#11 v3.1 section 5.4).
//!
//! Why so strict: after `C_Finalize` and `C_Initialize` the numbers of sessions and objects start again. An old object handle then signs with
//! *another key* without an error, and dropping an old session closes a new one. So every call runs under a shared lock, every session is
//! known here, and initialising again takes the lock exclusively, drops all sessions first, and begins a new generation.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, TryLockError, Weak};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::RvError;
use cryptoki::session::Session;

use super::fault::Fault;
use super::link::Link;

/// The documented exception to "no globals": a second `C_Initialize` of a library in one process fails or crashes, whoever asks for it.
/// Each path has its own lock, so that a library which hangs while it loads holds up nobody who uses another one.
static MODULES: Mutex<BTreeMap<PathBuf, Arc<Loading>>> = Mutex::new(BTreeMap::new());

/// The place of one library, empty until it is loaded.
type Loading = Mutex<Option<Arc<Module>>>;

/// A loaded and initialised library.
pub(super) struct Module {
    library: Pkcs11,
    /// Held shared during every call, exclusively while the module is initialised again.
    generation: RwLock<Generation>,
    sessions: Mutex<Vec<Weak<Mutex<Option<Open>>>>>,
    tokens: Mutex<Vec<Weak<Link>>>,
    /// Held during a login: two at once could spend two PIN tries, or see each other's PIN marker.
    login: Mutex<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Generation {
    number: u64,
    initialised: bool,
}

/// A session with the epoch in which it was opened.
pub(super) struct Open {
    pub(super) session: Session,
    pub(super) epoch: u64,
}

impl Module {
    /// The module at `path`: loaded and initialised by the first caller, shared with all later ones.
    pub(super) fn load(path: &Path) -> Result<Arc<Self>, Fault> {
        let canonical = std::fs::canonicalize(path).map_err(|error| Fault::Load(format!("{}: {error}", path.display())))?;
        let place = Arc::clone(lock(&MODULES).entry(canonical.clone()).or_default());
        let mut place = lock(&place);
        if let Some(module) = &*place {
            return Ok(Arc::clone(module));
        }
        let library = Pkcs11::new(&canonical).map_err(|error| Fault::Load(format!("{}: {error}", canonical.display())))?;
        initialise(&library)?;
        let module = Arc::new(Self {
            library,
            generation: RwLock::new(Generation { number: 1, initialised: true }),
            sessions: Mutex::default(),
            tokens: Mutex::default(),
            login: Mutex::default(),
        });
        *place = Some(Arc::clone(&module));
        Ok(module)
    }

    /// Makes this module known to a token's link, so that the module is never initialised again while that token can sign.
    pub(super) fn join(&self, link: &Arc<Link>) {
        let mut tokens = lock(&self.tokens);
        tokens.retain(|known| known.strong_count() > 0);
        if !tokens.iter().any(|known| known.as_ptr() == Arc::as_ptr(link)) {
            tokens.push(Arc::downgrade(link));
        }
    }

    /// Begins a call: while the answer lives, the module cannot be finalised.
    pub(super) fn enter(&self) -> Result<Entered<'_>, Fault> {
        let generation = self.generation.read().unwrap_or_else(PoisonError::into_inner);
        if generation.initialised {
            Ok(Entered { library: &self.library, generation })
        } else {
            Err(Fault::Load("its last initialisation failed".to_owned()))
        }
    }

    /// Whoever holds the answer is the only one in this process who logs in through this module.
    pub(super) fn login_turn(&self) -> MutexGuard<'_, ()> {
        lock(&self.login)
    }

    /// Finalises the module and initialises it again, after dropping every session. Refused while a call is live or another token of this
    /// module can sign.
    pub(super) fn reinitialise(&self) -> Result<(), Fault> {
        let mut generation = match self.generation.try_write() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                return Err(Fault::Occupied("a call is still running in the module, so it is not initialised again"));
            }
        };
        if lock(&self.tokens).iter().filter_map(Weak::upgrade).any(|link| link.can_sign()) {
            return Err(Fault::Occupied("another token of this module still works, so the module is not initialised again"));
        }
        for session in lock(&self.sessions).drain(..).filter_map(|weak| weak.upgrade()) {
            drop(lock(&session).take());
        }
        generation.number += 1;
        generation.initialised = false;
        // An error here mostly means that the module forgot us already, which is what was wanted.
        let _ = self.library.clone().finalize();
        initialise(&self.library)?;
        generation.initialised = true;
        Ok(())
    }
}

fn initialise(library: &Pkcs11) -> Result<(), Fault> {
    match library.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).map_err(Fault::from) {
        // It could not be finalised before: then it goes on as it is.
        Err(fault) if fault.code() == Some(RvError::CryptokiAlreadyInitialized) => Ok(()),
        outcome => outcome,
    }
}

/// A call in progress.
pub(super) struct Entered<'a> {
    library: &'a Pkcs11,
    generation: RwLockReadGuard<'a, Generation>,
}

impl Entered<'_> {
    /// The library, for as long as the call lasts.
    pub(super) fn library(&self) -> &Pkcs11 {
        self.library
    }

    /// Which initialisation of the module this is.
    pub(super) fn generation(&self) -> Generation {
        *self.generation
    }
}

/// The place for one thread's session. The module can empty it when it is initialised again, and the session is always dropped under the
/// module's lock.
pub(super) struct SessionPlace {
    module: Arc<Module>,
    open: Arc<Mutex<Option<Open>>>,
}

impl SessionPlace {
    /// An empty place.
    pub(super) fn new(module: Arc<Module>) -> Self {
        Self { module, open: Arc::default() }
    }

    /// The session, if any. Needs a call in progress, so that no session is used or dropped while the module is initialised again.
    pub(super) fn hold(&self, _call: &Entered<'_>) -> MutexGuard<'_, Option<Open>> {
        lock(&self.open)
    }

    /// Puts a session here; the one before is closed after the new one is known, so that the token's last session never closes in between
    /// (closing it logs out).
    pub(super) fn put(&self, call: &Entered<'_>, open: Open) {
        {
            let mut sessions = lock(&self.module.sessions);
            sessions.retain(|known| known.strong_count() > 0);
            if !sessions.iter().any(|known| known.as_ptr() == Arc::as_ptr(&self.open)) {
                sessions.push(Arc::downgrade(&self.open));
            }
        }
        drop(self.hold(call).replace(open));
    }
}

impl Drop for SessionPlace {
    fn drop(&mut self) {
        let _call = self.module.generation.read().unwrap_or_else(PoisonError::into_inner);
        drop(lock(&self.open).take());
    }
}

/// Locks a mutex whose data stays valid when a thread panics while holding it.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
