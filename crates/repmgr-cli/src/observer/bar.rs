//! A progress bar on the terminal.

use std::sync::{Mutex, PoisonError};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use repmgr_clone::{CopyEvent, Event, Observer, Progress, StandbyEvent};
use repmgr_types::text::escape;

use super::rate::{Rate, fitted, percent};
use crate::log::Log;

const REDRAWS_PER_SECOND: u8 = 10;
/// So short that the rest mostly fits into 80 columns.
const TEMPLATE: &str = "[{bar:10}] {wide_msg}";
/// What the bar itself takes of the line, and the last column, where some terminals wrap.
const BAR_COLUMNS: usize = 14;
/// Of what goes on without a known end.
const PLAIN: &str = "{wide_msg}";
/// Where the terminal does not tell.
const USUAL_COLUMNS: usize = 80;
/// ASCII, which every terminal has.
const CHARACTERS: &str = "=> ";

/// Shows how far the copy is, below the lines of the log.
pub(crate) struct Bar {
    log: Log,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    rate: Rate,
    bar: Option<ProgressBar>,
    /// Whether it has no known end.
    is_plain: bool,
}

impl Bar {
    pub(crate) fn new(log: Log) -> Self {
        Self {
            log,
            state: Mutex::default(),
        }
    }

    fn clear(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.bar.take().is_some() {
            self.log.set_bar(None);
        }
    }

    /// The bar of this sort, shown in place of one of the other.
    fn bar(&self, state: &mut State, is_plain: bool) -> ProgressBar {
        match &state.bar {
            Some(bar) if state.is_plain == is_plain => bar.clone(),
            _ => {
                let bar = new_bar(if is_plain { PLAIN } else { TEMPLATE });
                self.log.set_bar(Some(bar.clone()));
                state.is_plain = is_plain;
                state.bar.insert(bar).clone()
            }
        }
    }

    /// Below the lines of the log, until something else happens.
    fn show(&self, message: String) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.bar(&mut state, true).set_message(message);
    }

    fn is_plain(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.bar.is_some() && state.is_plain
    }
}

fn columns() -> usize {
    match rustix::termios::tcgetwinsize(std::io::stderr()) {
        Ok(size) if size.ws_col > 0 => size.ws_col.into(),
        _ => USUAL_COLUMNS,
    }
}

fn new_bar(template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let style = style.progress_chars(CHARACTERS);
    let target = ProgressDrawTarget::stderr_with_hz(REDRAWS_PER_SECOND);
    ProgressBar::with_draw_target(Some(100), target).with_style(style)
}

impl Observer for Bar {
    fn event(&self, event: Event) {
        if event.lasts().is_some() {
            if let Some(message) = event.message() {
                self.show(escape(&message.text, |_| false).into_owned());
            }
            return;
        }
        if self.is_plain()
            || matches!(
                event,
                Event::Copy(CopyEvent::CopyFinished { .. }) | Event::Standby(StandbyEvent::Complete { .. })
            )
        {
            self.clear();
        }
    }

    fn progress(&self, progress: &Progress) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let rate = state.rate.update(progress);
        let bar = self.bar(&mut state, false);
        let percent = percent(progress);
        // Asked for each time: terminals change their size.
        let message = fitted(progress, rate, columns().saturating_sub(BAR_COLUMNS));
        // Each of them draws: none for nothing.
        if bar.message() != message {
            bar.set_message(message);
        }
        if bar.position() != percent {
            bar.set_position(percent);
        }
    }
}

/// An error ends the copy too.
impl Drop for Bar {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use repmgr_clone::PlaceEvent;
    use repmgr_config::LogLevel;

    use super::super::samples::progress;
    use super::*;
    use crate::log::in_memory;

    #[test]
    fn the_template_is_one() {
        for template in [TEMPLATE, PLAIN] {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
    }

    #[test]
    fn what_has_no_known_end_is_shown_until_something_else_happens() {
        let bar = Bar::new(in_memory(LogLevel::Info));
        let shown = || bar.state.lock().unwrap().bar.as_ref().map(ProgressBar::message);
        let lasting = PlaceEvent::StillErasing {
            path: "/da\nta".into(),
            removed: 12,
            elapsed: Duration::from_secs(1),
        };
        bar.event(lasting.clone().into());
        let message = "erasing \"/da\\nta\": 12 files and directories are gone";
        assert_eq!(shown().as_deref(), Some(message));
        bar.event(PlaceEvent::Resuming.into());
        assert_eq!(shown(), None);
        bar.event(lasting.into());
        bar.progress(&progress(1, 10));
        assert!(!bar.is_plain() && shown().is_some_and(|message| message.starts_with("1%")));
        bar.event(PlaceEvent::Resuming.into());
        assert!(shown().is_some());
    }
}
