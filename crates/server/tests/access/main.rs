//! Who may do what, over real sockets and HTTP, on a server without `--dev`.

mod common;
mod doctypes;
mod ends;
mod http;
mod logins;
mod operations;
mod presence;
mod process;
mod sync;
