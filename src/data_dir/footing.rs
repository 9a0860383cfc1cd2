//! What the promise of a data folder stands on, and what is wrong with it: what is written there has to be there after a
//! restart. The log asks before each acknowledgement, the store before each batch.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::anchor::{Anchor, Displaced};
use crate::observe::status::Component;
use crate::observe::troubles::Troubles;

/// The parts of a data folder in use, and their troubles.
#[derive(Debug, Default)]
pub struct Footing {
    anchors: Mutex<Vec<Anchor>>,
    faults: Mutex<BTreeMap<Fault, String>>,
    troubles: Arc<Troubles>,
}

/// What can be wrong with a data folder that was well when it was opened. Each has a reason of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A name leads somewhere else.
    Place,
    /// A segment of the command log is missing, or not as it was written.
    Segment,
    /// The command log cannot be written, or not be made durable.
    Log,
    /// The store could not be made durable.
    Store,
    /// The command log has as many bytes as it may.
    Full,
    /// The key of the tokens is not in its file any more, which no write depends on.
    Key,
    /// The id of the command log is not in its file any more, which no write depends on.
    LogId,
}

impl Footing {
    /// A footing without anchors that notes its faults here.
    pub fn new(troubles: Arc<Troubles>) -> Footing {
        Footing { troubles, ..Footing::default() }
    }

    /// From now on, this has to stay where it is.
    pub fn stand_on(&self, anchor: Anchor) {
        self.anchors().push(anchor);
    }

    /// Whether everything is where its name is. A folder that was moved back counts: it is the same one.
    ///
    /// # Errors
    /// What is not, what it means and what to do, as text.
    pub fn check(&self) -> Result<(), String> {
        let displaced = self.anchors().iter().find_map(|anchor| {
            let displaced = anchor.check().err()?;
            Some(displaced_text(anchor.path(), &displaced))
        });
        self.set(Fault::Place, displaced.as_deref());
        match displaced.or_else(|| self.faults().get(&Fault::Segment).cloned()) {
            Some(reason) => Err(reason),
            None => Ok(()),
        }
    }

    /// Notes a fault with its reason, or that there is none.
    pub fn set(&self, fault: Fault, reason: Option<&str>) {
        let mut faults = self.faults();
        let is_news = faults.get(&fault).map(String::as_str) != reason;
        if !is_news {
            return;
        }
        match reason {
            Some(reason) => faults.insert(fault, reason.to_owned()),
            None => faults.remove(&fault),
        };
        let reasons: Vec<&str> = faults.values().map(String::as_str).collect();
        self.troubles.set(Component::DataFolder, (!reasons.is_empty()).then(|| reasons.join("; ")).as_deref());
    }

    fn faults(&self) -> MutexGuard<'_, BTreeMap<Fault, String>> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn anchors(&self) -> MutexGuard<'_, Vec<Anchor>> {
        self.anchors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a displaced file or folder means, and what to do.
pub fn displaced_text(path: &Path, displaced: &Displaced) -> String {
    let remedy = match displaced {
        Displaced::Gone => {
            "Put it back at its place, and writes go on; if it was deleted on purpose, restart the server, which begins \
             with what is there then"
        }
        Displaced::Replaced => {
            "Put the first one back, and writes go on; or restart the server, which begins with what is there then"
        }
        Displaced::Unreachable(_) => "Writes go on when it can be reached again",
    };
    format!(
        "{} is in use, but {displaced}: what is written now would be gone after a restart, so writes are refused. {remedy}",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_is_told_until_it_is_over() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("file");
        std::fs::write(&path, "").expect("written");
        let troubles = Arc::new(Troubles::default());
        let footing = Footing::new(Arc::clone(&troubles));
        footing.stand_on(Anchor::at(&path).expect("there"));
        footing.check().expect("all is well");
        assert_eq!(troubles.lines(), Vec::<String>::new());
        footing.set(Fault::Log, Some("disk full"));
        let away = folder.path().join("away");
        std::fs::rename(&path, &away).expect("moved");
        let reason = footing.check().expect_err("it is gone");
        assert!(reason.contains("file is in use, but it was deleted, moved away"), "{reason}");
        assert_eq!(troubles.lines(), [format!("data_folder: {reason}; disk full")]);
        std::fs::rename(&away, &path).expect("moved back");
        footing.check().expect("it is back");
        assert_eq!(troubles.lines(), ["data_folder: disk full"]);
        footing.set(Fault::Log, None);
        assert_eq!(troubles.lines(), Vec::<String>::new());
    }
}
