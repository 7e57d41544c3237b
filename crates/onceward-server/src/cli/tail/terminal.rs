//! The terminal: keys one by one, a screen of one's own, and everything as it was before at the end, however that
//! comes.

use std::io::{self, Read as _, Write as _};
use std::sync::{Mutex, PoisonError};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::sync::mpsc;

use super::paint::Size;

/// A screen of one's own, without a cursor, and lines that do not wrap.
const ENTER: &str = "\u{1b}[?1049h\u{1b}[?25l\u{1b}[?7l\u{1b}[2J";
const LEAVE: &str = "\u{1b}[0m\u{1b}[?7h\u{1b}[?25h\u{1b}[?1049l";

/// Where it cannot be told.
const SIZE: Size = Size { columns: 80, lines: 24 };

/// Pieces of what was typed that wait to be taken.
const TYPED_MAX: usize = 64;

/// How the terminal was. It is here and not in the guard, for a panic has to put it back before it speaks.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// The terminal while it is ours.
pub(super) struct Terminal {
    drawn: String,
}

impl Terminal {
    /// Takes it.
    pub(super) fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        let said = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            leave();
            said(panic);
        }));
        let terminal = Self { drawn: String::new() };
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        write(ENTER)?;
        Ok(terminal)
    }

    pub(super) fn size() -> Size {
        let found = tcgetwinsize(io::stdout()).ok();
        let found = found.filter(|size| size.ws_col > 0 && size.ws_row > 0);
        found.map_or(SIZE, |size| Size { columns: size.ws_col.into(), lines: size.ws_row.into() })
    }

    /// Draws a screen, where it is another than the last.
    pub(super) fn draw(&mut self, screen: String) -> io::Result<()> {
        if screen != self.drawn {
            write(&screen)?;
            self.drawn = screen;
        }
        Ok(())
    }

    /// What is on it counts no more.
    pub(super) fn forget(&mut self) -> io::Result<()> {
        self.drawn.clear();
        write("\u{1b}[2J")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        leave();
    }
}

/// Puts it back, once.
fn leave() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(before) = before {
        // Whoever is left to tell of it is the terminal itself.
        let _ = write(LEAVE);
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &before);
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// What is typed from now on, as it comes; it ends where the terminal goes away.
pub(super) fn typed() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(TYPED_MAX);
    std::thread::spawn(move || {
        let mut bytes = [0; 256];
        while let Ok(count) = io::stdin().lock().read(&mut bytes) {
            if count == 0 || sender.blocking_send(bytes[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    receiver
}
