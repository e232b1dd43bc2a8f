//! What the unit tests share.

use std::sync::Mutex;

use crate::{Event, Observer};

/// Keeps what is told.
#[derive(Default)]
pub(crate) struct Heard(pub(crate) Mutex<Vec<Event>>);

impl Observer for Heard {
    fn event(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}
