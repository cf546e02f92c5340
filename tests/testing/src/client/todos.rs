//! The todo list of most tests, and what is done with it in few words.

use tidelog_client::Call;
use tidelog_document::{Doctype, ParamKind};
use tidelog_types::Value;

use super::{Device, define, text};

/// The todo list of the README, with a constraint that two devices can break together.
pub fn todos() -> Doctype {
    let (id, title) = (("id", ParamKind::Text), ("title", ParamKind::Text));
    Doctype {
        name: "todos".to_owned(),
        migrations: vec![
            "create table todo (id text primary key, title text not null unique,
                                done integer not null default 0, at integer not null) strict;
             create table note (text text not null) strict"
                .to_owned(),
        ],
        mutations: vec![
            define(
                "add",
                &[id, title],
                &["insert into todo (id, title, at) values (:id, :title, :now)"],
            ),
            define("endless", &[], &[
                "insert into note with recursive c(n) as (select 1 union all select n + 1 from c)
                 select 'x' from c where n < 0",
            ]),
            define("note", &[title], &["insert into note values (:title)"]),
            define("remove", &[id], &[
                "select reject('no such todo') where not exists
                 (select 1 from todo where id = :id)",
                "delete from todo where id = :id",
            ]),
            define("toggle", &[id], &["update todo set done = 1 - done where id = :id"]),
        ],
        streams: Vec::new(),
        workflows: Vec::new(),
    }
}

/// Adds a todo with a title that no other one has.
pub fn add(device: &mut Device, id: &str) -> Call {
    titled(device, id, &format!("title of {id}"))
}

/// Adds a todo with this title, of which a list can have but one.
pub fn titled(device: &mut Device, id: &str, title: &str) -> Call {
    device.mutate("add", &[("id", text(id)), ("title", text(title))])
}

/// How many todos there are, as the one row of a query.
pub fn count(device: &mut Device) -> Vec<Vec<Value>> {
    device.query("select count(*) from todo")
}
