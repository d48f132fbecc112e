//! The user's terminal: whether there is one, its size, raw mode and the way back from it.

use std::io::{self, IsTerminal, stdin};
use std::os::fd::AsFd;

use cube_api::stream::TerminalSize;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// Whether standard input and output both are terminals: a person sits there.
pub fn is_interactive() -> bool {
    stdin().is_terminal() && io::stdout().is_terminal()
}

/// The size of the terminal that standard input is; `None` where it isn't one or doesn't know.
pub fn size() -> Option<TerminalSize> {
    let size = tcgetwinsize(stdin().as_fd()).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some(TerminalSize { width: size.ws_col, height: size.ws_row })
}

/// Raw mode of the terminal that standard input is: every key goes to the far side, Ctrl-C too. Dropping it, by a panic as well, restores.
pub struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Switches it on.
    pub fn enter() -> io::Result<Self> {
        let before = tcgetattr(stdin().as_fd())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin().as_fd(), OptionalActions::Drain, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that is gone has nothing to restore.
        tcsetattr(stdin().as_fd(), OptionalActions::Drain, &self.before).ok();
    }
}
