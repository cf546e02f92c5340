//! A worker in Rust beside pages and Node: it has the runs of a shop go on. The tests of Node have
//! it take over from a process of Node, and the other way round.
//!
//! ```text
//! worker ws://127.0.0.1:8787 corner-shop works.json [KEY]
//! ```
//!
//! Says `ready`, and `asked KEY` for each request; never answers the one of that KEY. Ends in order
//! once its input does.

use std::error::Error;
use std::io::Read as _;

use serde::Deserialize;
use serde_json::{Value as Json, json as object};
use tidelog_native::{
    Engine, Handler, NewEvent, OpenOptions, StepError, Workflow, WorkflowContext, WorkflowError,
    json,
};

#[derive(Deserialize)]
struct Fulfil {
    order: String,
}

#[derive(Deserialize)]
struct Label {
    weight: i64,
}

/// Whoever prints labels.
async fn print(key: String, hangs_at: Option<&str>) -> Result<String, StepError> {
    println!("asked {key}");
    if hangs_at == Some(key.as_str()) {
        std::future::pending().await
    }
    Ok(key)
}

/// The same story as the one in `tests/node/rust.test.mjs`.
async fn fulfil(
    ctx: WorkflowContext,
    order: String,
    hangs_at: Option<&str>,
) -> Result<Json, WorkflowError> {
    let drawn = ctx.random();
    let stamp: f64 = ctx.step("stamp", async || Ok(drawn)).await?;
    let first: String = ctx.request("label", async |key| print(key, hangs_at).await).await?;
    ctx.sleep(std::time::Duration::from_millis(20)).await?;
    let paid = ctx.send("order", "pay", &order, &object!({})).await?;
    let shipped = ctx.wait_for("order", &order, "shipped", None).await?;
    let weight: Json = ctx.start("label", &object!({ "weight": 3 })).await?;
    let torn = ctx.step("torn", async || Err::<(), _>(StepError::new("no paper"))).retries(0);
    let Err(WorkflowError::StepFailed { reason, .. }) = torn.await else {
        return Err(ctx.fail("it was not torn"));
    };
    let second: String = ctx.request("label", async |key| print(key, hangs_at).await).await?;
    Ok(object!({
        "stamp": stamp,
        "keys": [first, second],
        "paid": paid.map(|it| it.last - it.first),
        "by": shipped.map(|it| it.data["by"].clone()),
        "weight": weight,
        "reason": reason,
    }))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut given = std::env::args().skip(1);
    let mut next = |what: &str| given.next().ok_or_else(|| format!("which {what}?"));
    let (server, document, doctype) = (next("server")?, next("document")?, next("doctype")?);
    let hangs_at = given.next();

    let works = json::parse(&std::fs::read(doctype)?)?;
    let engine = Engine::in_memory()?;
    let db = engine.open(&works, OpenOptions::new(document).server(server)).await?;
    let orders = Handler::new("order", (), |(), _| ())
        .command("pay", async |_, _: Json| Ok(vec![NewEvent::bare("paid")]));
    let label = Workflow::new("label", async |_, Label { weight }| Ok(weight * 2));
    let fulfil = Workflow::new("fulfil", move |ctx, Fulfil { order }| {
        let hangs_at = hangs_at.clone();
        async move { fulfil(ctx, order, hangs_at.as_deref()).await }
    });
    let handling =
        [db.handle(orders, 16)?, db.handle_workflow(label, 16)?, db.handle_workflow(fulfil, 16)?];
    println!("ready");
    // Whoever has started this goes away, or closes it.
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    for it in handling {
        it.close().await?;
    }
    db.close().await?;
    Ok(())
}
