//! The readable story of a run.

use std::{cell::RefCell, fmt::Write as _, rc::Rc};

use accede_core::Xid;

/// Lines of time, who, XID and what; nothing is formatted unless somebody wants to read it. The
/// text stays readable when the run panics.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace(Option<Rc<RefCell<String>>>);

impl Trace {
    pub(crate) fn new(wanted: bool) -> Self {
        Self(wanted.then(Rc::default))
    }

    pub(crate) fn line(
        &self,
        at_ms: u64,
        who: impl std::fmt::Display,
        xid: Option<Xid>,
        what: impl FnOnce() -> String,
    ) {
        if let Some(text) = &self.0 {
            let xid = xid.map_or_else(|| "-".to_owned(), |xid| xid.to_string());
            let (seconds, ms) = (at_ms / 1000, at_ms % 1000);
            // Writing to a String cannot fail.
            let _ = writeln!(
                text.borrow_mut(),
                "{seconds:>5}.{ms:03}  {who:<11}  {xid:<16}  {}",
                what()
            );
        }
    }

    pub(crate) fn take(&self) -> String {
        self.0.as_ref().map_or_else(String::new, |text| text.take())
    }
}
