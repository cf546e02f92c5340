//! Who may do what, over real sockets and HTTP, on a server without `--dev`.

mod archives;
mod commands;
mod common;
mod deployment;
mod doctypes;
mod documents;
mod due;
mod ends;
mod erasing;
mod facts;
mod handling;
mod http;
mod imports;
mod keys;
mod logins;
mod matrix;
mod matrix_events;
mod on_no_disk;
mod operating;
mod operations;
mod operator;
mod presence;
mod process;
mod streams;
mod sync;
mod tls;
