//! `tail` at a terminal: looks at the gateway, and does what keys say.

use std::env;
use std::io;
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::super::client::{Client, Refused, part};
use super::super::output::each;
use super::board::{Act, Board, Deed, Seen, Wanted};
use super::paint::{ansi, room, screen};
use super::terminal::{Terminal, typed};
use super::{PAUSE, Tail, keys};
use crate::exit::Exit;

/// A look that takes longer says that the gateway is away.
const LOOK_TIME_MAX: Duration = Duration::from_secs(10);

/// What is under way, of which there is one at a time.
type Doing<'a, T> = Option<Pin<Box<dyn Future<Output = T> + 'a>>>;

/// Follows until a person ends it.
pub(super) async fn watch(flags: &Tail, client: &Client) -> Result<(), Exit> {
    let mut board = Board::new(flags);
    // What is wrong from the start is said as any verb says it.
    let first = look(client, board.wanted()).await?;
    board.take(first);
    let mut signals = Signals::new().map_err(|error| Exit::failed(error.to_string()))?;
    let terminal = Terminal::enter();
    let mut terminal = terminal.map_err(|error| Exit::failed(format!("terminal: {error}")))?;
    let code = run(&mut board, flags.has_colour(), client, &mut terminal, &mut signals).await?;
    drop(terminal);
    if code == 0 { Ok(()) } else { Err(Exit::quiet(code)) }
}

/// What ends it from outside, and a window that changes its size.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
    window: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
            window: signal(SignalKind::window_change())?,
        })
    }
}

/// Tells the exit code.
async fn run(
    board: &mut Board,
    has_colour: bool,
    client: &Client,
    terminal: &mut Terminal,
    signals: &mut Signals,
) -> Result<u8, Exit> {
    let gateway = client.base().as_str().trim_end_matches('/').to_owned();
    let mut typed = typed();
    let mut tick = tokio::time::interval(PAUSE);
    let mut looking: Doing<'_, Result<Seen, Refused>> = None;
    let mut doing: Doing<'_, (Deed, Result<Value, Refused>)> = None;
    loop {
        let size = Terminal::size();
        board.room = room(size);
        let (lines, from) = screen(board, size, &gateway, jiff::Timestamp::now());
        board.scrolled_to(from);
        let drawn = terminal.draw(ansi(&lines, size, has_colour));
        drawn.map_err(|error| Exit::failed(format!("terminal: {error}")))?;
        tokio::select! {
            seen = ready(&mut looking) => match seen {
                Ok(seen) => {
                    if board.away.is_some() {
                        board.said = Some("the gateway is back".to_owned());
                    }
                    board.take(seen);
                }
                Err(refused) if refused.is_away => {
                    board.away.get_or_insert_with(|| jiff::Timestamp::now().strftime("%H:%M:%SZ").to_string());
                }
                // Another key, or none: nothing will come any more.
                Err(refused) if refused.exit.code == 4 => return Err(refused.into()),
                Err(refused) => board.said = Some(refused.exit.message),
            },
            (deed, told) = ready(&mut doing) => {
                board.done(deed, told.map_err(|refused| refused.exit.message));
                looking = Some(Box::pin(look(client, board.wanted())));
            }
            bytes = typed.recv() => {
                let Some(bytes) = bytes else { return Ok(0) };
                for key in keys::read(&bytes) {
                    match board.press(key) {
                        None => {}
                        Some(Act::Quit(code)) => return Ok(code),
                        Some(Act::Look) => looking = Some(Box::pin(look(client, board.wanted()))),
                        Some(Act::Open(id)) => board.said = Some(open(&format!("{gateway}/operations/{}", part(&id)))),
                        Some(Act::Do { .. }) if doing.is_some() => {
                            board.said = Some("the last deed is still under way; nothing was done".to_owned());
                        }
                        Some(Act::Do { deed, id, document }) => {
                            board.said = Some(format!("{} …", deed.name()));
                            let path = format!("/v1/operations/{}/{}", part(&id), deed.name());
                            doing = Some(Box::pin(async move { (deed, client.post(&path, &document).await) }));
                        }
                    }
                }
            }
            _ = tick.tick() => {
                if looking.is_none() && !board.is_paused {
                    looking = Some(Box::pin(look(client, board.wanted())));
                }
            }
            _ = signals.window.recv() => terminal.forget().map_err(|error| Exit::failed(error.to_string()))?,
            _ = signals.interrupt.recv() => return Ok(130),
            _ = signals.terminate.recv() => return Ok(130),
            _ = signals.hang_up.recv() => return Ok(130),
        }
    }
}

/// What comes of what is under way; it never comes where nothing is.
async fn ready<T>(doing: &mut Doing<'_, T>) -> T {
    let Some(future) = doing else { return std::future::pending().await };
    let done = future.await;
    *doing = None;
    done
}

/// Asks for the list, and by id for what the list does not have.
async fn look(client: &Client, wanted: Wanted) -> Result<Seen, Refused> {
    let looked = tokio::time::timeout(LOOK_TIME_MAX, async {
        let page = client.get(&wanted.list).await?;
        let is_listed = |id: &String| each(&page, "/data").iter().any(|row| row["id"] == **id);
        let missing = wanted.others.iter().filter(|id| !is_listed(id));
        let ids: Vec<&String> = missing.filter(|id| wanted.story.as_ref() != Some(id)).collect();
        let mut others = Vec::new();
        for id in ids.into_iter().chain(&wanted.story) {
            match client.get(&format!("/v1/operations/{}", part(id))).await {
                Ok(row) => others.push((id.clone(), Some(row))),
                // It ended, and its window is over.
                Err(refused) if refused.exit.code == 3 => others.push((id.clone(), None)),
                Err(refused) => return Err(refused),
            }
        }
        Ok(Seen { filter: wanted.filter, page, others })
    });
    let late = || {
        let why = format!("the gateway did not answer within {} s", LOOK_TIME_MAX.as_secs());
        Refused { exit: Exit::failed(why), is_away: true }
    };
    looked.await.unwrap_or_else(|_| Err(late()))
}

/// Opens an address in a browser where there is one to be seen; tells what was done.
fn open(url: &str) -> String {
    let has_desktop = ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| env::var_os(name).is_some());
    let program =
        if cfg!(target_os = "macos") { Some("open") } else { has_desktop.then_some("xdg-open") };
    let started = program.and_then(|program| {
        let mut command = Command::new(program);
        command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().ok()
    });
    if started.is_some() { format!("opened {url}") } else { url.to_owned() }
}
