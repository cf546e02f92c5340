//! Who may do what, over real sockets and HTTP, on a server without `--dev`.

mod commands;
mod common;
mod doctypes;
mod documents;
mod http;
mod logins;
mod process;
mod sync;
