//! The binary `tidelog`.

mod signals;

use std::error::Error;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use tidelog_server::{
    Backup, Check, CommandError, Config, Deploy, DocumentCommands, Events, Export, Forgive, Import,
    LogFormat, Ready, Restore, Revoke, Serve, ServeSettings, Server, Token, User,
};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::subscriber::set_global_default;
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

use crate::signals::Signals;

/// Tidelog: a SQLite database in the browser that works offline and syncs through this server.
#[derive(Parser)]
#[command(version, about, after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve documents from the embedded store
    Serve(Serve),
    /// Send a doctype to a server, whose documents may be of it from then on
    Deploy(Deploy),
    /// Events of a server's document, and what was said with them
    Events(Events),
    /// Commands of a server's document, which may be given again or cancelled
    Commands(DocumentCommands),
    /// Write all documents and doctypes of a server into a file, while it runs or not
    Backup(Backup),
    /// Make the store of a server of a backup
    Restore(Restore),
    /// Read all of a server's store, while it runs or not
    Check(Check),
    /// Write a document of a server into a SQLite file, while it runs or not
    Export(Export),
    /// Make a document of a SQLite file, while the server runs or not
    Import(Import),
    /// Whether the server of a data folder serves clients: exit code 0, or else 1
    Ready(Ready),
    /// End all tokens of a subject, while the server runs or not
    Revoke(Revoke),
    /// Have tokens hold again that were ended by mistake, while the server runs or not
    Forgive(Forgive),
    /// Print a token as the app would sign it, to try things with
    Token(Token),
    /// Passwords of the built-in users
    User(User),
    /// The settings of a server
    Config(Config),
}

const FAILED: u8 = 1;
const WRONG_USAGE: u8 = 2;

/// How long who stops a server that starts waits for it to have started.
const NEARLY_STARTED: Duration = Duration::from_secs(1);

/// For SQLite as well, which is C: see `.cargo/config.toml` for how it is set.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let matches = Cli::command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    #[cfg(unix)]
    restrict_files();
    let done = match cli.command {
        Command::Serve(flags) => return serve(flags),
        Command::Deploy(deploy) => deploy.run(),
        Command::Events(events) => events.run(),
        Command::Commands(commands) => commands.run(),
        Command::Backup(backup) => backup.run(),
        Command::Restore(restore) => restore.run(),
        Command::Check(check) => check.run(),
        Command::Export(export) => export.run(),
        Command::Import(import) => import.run(),
        Command::Ready(ready) => ready.run(),
        Command::Revoke(revoke) => revoke.run(),
        Command::Forgive(forgive) => forgive.run(),
        Command::Token(token) => token.run(),
        Command::User(user) => user.run(),
        Command::Config(config) => {
            config.run(matches.subcommand_matches("config").expect("BUG: it is that one"))
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ CommandError::Usage(_)) => report(&error, WRONG_USAGE),
        Err(error @ CommandError::Failed(_)) => report(&error, FAILED),
    }
}

fn serve(flags: Serve) -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Where nobody reads the log any more, as in a terminal that was closed, to say that it cannot
    // be written would be a panic.
    let log = log.log_internal_errors(false);
    // Colours are for people: whatever looks for `outcome=401` in a file would find none.
    let has_colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let log = log.with_ansi(has_colours);
    // What libraries say by other ways is not heard: some would write whole messages down, and the
    // tokens in them.
    match flags.log_format() {
        LogFormat::Text => set_global_default(log.finish()),
        LogFormat::Json => set_global_default(log.json().flatten_event(true).finish()),
    }
    .expect("BUG: nobody else has set it");
    let settings = match flags.clone().resolve() {
        Ok(settings) => settings,
        Err(error) => return report(&error, WRONG_USAGE),
    };
    #[cfg(unix)]
    open_many_files(&settings);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(&error, FAILED),
    };
    let code = runtime.block_on(async {
        // From here on: whoever stops a server that has just begun means the same.
        let mut signals = Signals::new();
        // It waits for the disk, which may hang: on a thread of its own, since where there is one
        // core it would hold the only one that hears of signals.
        let runtime = Handle::current();
        let mut starting = spawn_blocking(move || runtime.block_on(Server::start(&settings)));
        let mut is_to_stop = false;
        let started = tokio::select! {
            biased;
            started = &mut starting => started,
            () = signals.stop() => {
                is_to_stop = true;
                // It may be about to serve, and then it ends as any other.
                match timeout(NEARLY_STARTED, starting).await {
                    Ok(started) => started,
                    Err(_) => return ExitCode::SUCCESS,
                }
            }
        };
        let server = match started.expect("BUG: it panicked as it started") {
            Ok(server) => server,
            Err(error) => return report(&error, FAILED),
        };
        // Whether anybody reads it or not.
        let _ = writeln!(std::io::stdout(), "listening on {}", server.url());
        while !is_to_stop && signals.stop_or_reload().await {
            tokio::select! {
                () = reload(&server, &flags) => {}
                // What it reads may hang: whoever stops does not wait for that.
                () = signals.stop() => break,
            }
        }
        tokio::select! {
            () = server.stop() => ExitCode::SUCCESS,
            () = signals.stop_again() => {
                warn!("told to stop once more: it ends at once");
                ExitCode::from(FAILED)
            }
        }
    });
    // Whoever still hangs is not waited for: all that was acknowledged is on the disk.
    runtime.shutdown_background();
    code
}

/// Files are for their owner alone.
#[cfg(unix)]
fn restrict_files() {
    use rustix::fs::Mode;

    rustix::process::umask(Mode::RWXG | Mode::RWXO);
}

/// Files besides connections: those of the store, and of what is exported and imported.
#[cfg(unix)]
const OTHER_FILES: u64 = 1_000;

/// There may be as many connections as the system allows. Whoever opens a server to others hears of
/// it if that is fewer than the settings do.
#[cfg(unix)]
fn open_many_files(settings: &ServeSettings) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        warn!(%error, "the limit of open files stays as it is");
    }
    let connections_max = settings.connections_max;
    let wanted = (connections_max as u64).saturating_add(OTHER_FILES);
    if let Some(files_max) = maximum.filter(|it| *it < wanted && !settings.dev) {
        warn!(
            files_max,
            connections_max,
            "the system lets the server open fewer files than there may be connections, each of \
             which is one: raise the limit (LimitNOFILE, ulimit -n), or lower --connections-max"
        );
    }
}

/// Reads the settings again, and has the server take what may change while it runs.
async fn reload(server: &Server, flags: &Serve) {
    let flags = flags.clone();
    let read = spawn_blocking(move || flags.resolve()).await.expect("BUG: it panicked as it read");
    let failed = match read {
        Ok(settings) => match server.reload(&settings) {
            Ok(()) => {
                return info!("keys, allowed origins and the certificate were read again");
            }
            Err(error) => in_full(&error),
        },
        Err(error) => in_full(&error),
    };
    warn!("keys, allowed origins and the certificate stay as they were: {failed}");
}

fn report(error: &dyn Error, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "tidelog: {}", in_full(error));
    ExitCode::from(code)
}

/// The error and what caused it, on one line.
fn in_full(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(error.to_string().trim_end());
        cause = error.source();
    }
    line
}
