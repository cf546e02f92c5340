//! Runs of workflows that go on in a program in Rust.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value as Json, json as object};
use tidelog_native::{
    Database, Doctype, Engine, ErrorCode, Handler, Handling, NewEvent, OpenOptions, Receipt,
    RunError, SendOptions, StartOptions, StepError, Workflow, WorkflowContext, WorkflowError,
    WorkflowReceipt, json,
};
use tidelog_testing::server::{PATIENCE, settings, start_when_free};

const WORKS: &str = r#"{
    "name": "works",
    "migrations": [],
    "mutations": {
        "ship": { "params": { "id": "text", "by": "text" }, "sql": ["SHIP"] }
    },
    "streams": {
        "order": {
            "events": {
                "paid": { "fields": {}, "upcast": [], "project": [] },
                "shipped": { "fields": { "by": "text" }, "upcast": [], "project": [] }
            },
            "commands": {
                "pay": {
                    "fields": {}, "received": [], "failed": [], "retries": 0, "timeout": 30000
                }
            }
        }
    },
    "workflows": {
        "fulfil": { "version": 2, "fields": { "order": "text" } },
        "label": { "version": 1, "fields": { "weight": "integer" } },
        "rounds": { "version": 1, "fields": { "left": "integer" } }
    }
}"#;

const SHIP: &str = "insert into tidelog_events (aggregate, stream, type, data) \
                    values ('order', :id, 'shipped', json_object('by', :by))";

fn works() -> Doctype {
    json::parse(WORKS.replace("SHIP", SHIP).as_bytes()).expect("a doctype")
}

#[derive(Deserialize)]
struct Fulfil {
    order: String,
}

#[derive(Deserialize)]
struct Label {
    weight: i64,
}

async fn until<T>(what: &str, waited: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, waited).await.unwrap_or_else(|_| panic!("{what} is waited for"))
}

async fn open(engine: &Engine) -> Database {
    engine.open(&works(), OpenOptions::new("shops/1")).await.expect("a document")
}

async fn local() -> Database {
    open(&Engine::in_memory().expect("an engine")).await
}

fn start(db: &Database, id: &str) -> WorkflowReceipt {
    db.start("fulfil", &object!({ "order": "order-7" }), StartOptions::id(id))
}

fn ship(db: &Database) -> Receipt {
    db.mutate("ship", [("id", "order-7".into()), ("by", "van".into())])
}

/// Pays orders, and labels parcels.
fn helpers(db: &Database) -> [Handling; 2] {
    let orders = Handler::new("order", (), |(), _| ())
        .command("pay", async |_, _: Json| Ok(vec![NewEvent::bare("paid")]));
    let label = Workflow::new("label", async |_, Label { weight }| Ok(weight * 2));
    [db.handle(orders, 16).expect("handled"), db.handle_workflow(label, 16).expect("handled")]
}

async fn texts(db: &Database, sql: &str) -> Vec<String> {
    db.query(sql, ()).await.expect("rows").to().expect("texts")
}

async fn state_of(db: &Database, id: &str) -> String {
    let sql = format!("select state from tidelog_workflows where id = '{id}'");
    texts(db, &sql).await.pop().unwrap_or_default()
}

async fn until_it_is(db: &Database, id: &str, state: &str) {
    until(state, async {
        while state_of(db, id).await != state {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// What a run remembers, without times.
async fn records(db: &Database, id: &str) -> Vec<String> {
    let sql = format!(
        "select name || ' ' || count || ' ' || kind || ' ' || state || ' ' || coalesce(result, '-')
         from tidelog_records where id = '{id}' order by record"
    );
    texts(db, &sql).await
}

/// Whoever is asked by requests: how often by which key. It never answers the request at which the
/// process dies.
#[derive(Clone, Default)]
struct FarEnd {
    asked: Arc<Mutex<BTreeMap<String, u32>>>,
    deaths: Arc<Mutex<Vec<String>>>,
    dying: Arc<tokio::sync::Notify>,
}

impl FarEnd {
    /// A step of that name is the last one of a process.
    fn dies_at(&self, names: &[&str]) {
        let names = names.iter().map(ToString::to_string).rev();
        self.deaths.lock().expect("a lock").extend(names);
    }

    /// Before what is done next.
    async fn at(&self, name: &str) {
        let dies = {
            let mut deaths = self.deaths.lock().expect("a lock");
            let dies = deaths.last().is_some_and(|it| it == name);
            if dies {
                deaths.pop();
            }
            dies
        };
        if dies {
            self.dying.notify_one();
            std::future::pending().await
        }
    }

    async fn ask(&self, key: String) -> Result<String, StepError> {
        *self.asked.lock().expect("a lock").entry(key.clone()).or_default() += 1;
        self.at(&key).await;
        Ok(key)
    }
}

/// One of everything.
async fn story(ctx: WorkflowContext, order: String, far: FarEnd) -> Result<Json, WorkflowError> {
    let stamp: f64 = {
        let drawn = ctx.random();
        ctx.step("stamp", async || {
            far.at("stamp").await;
            Ok(drawn)
        })
        .await?
    };
    assert!((0.0..1.0).contains(&stamp));
    far.at("before label").await;
    let first: String = ctx.request("label", async |key| far.ask(key).await).await?;
    far.at("before sleep").await;
    ctx.sleep(Duration::from_millis(5)).await?;
    far.at("before pay").await;
    let paid = ctx.send("order", "pay", &order, &object!({})).await?.expect("an event");
    assert_eq!(paid.first, paid.last);
    far.at("before shipped").await;
    let shipped = ctx.wait_for("order", &order, "shipped", None).await?.expect("it is");
    far.at("before label run").await;
    let weight: i64 = ctx.start("label", &object!({ "weight": 3 })).await?;
    far.at("before torn").await;
    let torn = ctx.step("torn", async || Err::<(), _>(StepError::new("no paper"))).retries(0);
    let Err(WorkflowError::StepFailed { reason, .. }) = torn.await else {
        return Err(ctx.fail("it was not torn"));
    };
    far.at("before second").await;
    let second: String = ctx.request("label", async |key| far.ask(key).await).await?;
    far.at("before end").await;
    Ok(object!({
        "by": shipped.data["by"], "weight": weight, "reason": reason, "keys": [first, second]
    }))
}

fn fulfil(far: &FarEnd) -> Workflow {
    let far = far.clone();
    Workflow::new("fulfil", move |ctx, Fulfil { order }| story(ctx, order, far.clone()))
}

const KEYS: [&str; 2] = ["fulfil/f-1~1/label/0", "fulfil/f-1~1/label/1"];

fn outcome() -> Json {
    object!({ "by": "van", "weight": 6, "reason": "no paper", "keys": KEYS })
}

const RECORDS: [&str; 8] = [
    "stamp 0 step done 0.729999443891969",
    "label 0 request done \"fulfil/f-1~1/label/0\"",
    "sleep 0 sleep done -",
    "send:order.pay 0 command done {\"first\":1,\"last\":1}",
    "waitFor:order.shipped 0 event done 2",
    "start:label 0 workflow done 6",
    "torn 0 step failed no paper",
    "label 1 request done \"fulfil/f-1~1/label/1\"",
];

#[tokio::test]
async fn a_run_does_one_of_everything() {
    let (db, far) = (local().await, FarEnd::default());
    let _helpers = helpers(&db);
    let handling = db.handle_workflow(fulfil(&far), 16).expect("handled");
    let run = start(&db, "f-1");
    assert_eq!(run.id(), "f-1");
    run.durable().await.expect("started");
    until("that it waits for it", async {
        while !records(&db, "f-1").await.iter().any(|it| it.starts_with("waitFor")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    ship(&db).confirmed().await.expect("shipped");
    assert_eq!(until("the end", run.completed()).await.expect("fulfilled"), outcome());
    assert_eq!(records(&db, "f-1").await, RECORDS);
    let again = db.run_outcome("fulfil", "f-1").await.expect("it is known");
    assert_eq!(again, outcome());
    handling.close().await.expect("closed");
}

/// Goal: whatever a process dies at, the run goes on elsewhere: each thing is done once at the far
/// end, and it completes once. Method: engines at a server that are dropped, without a close, at
/// each place in turn.
#[tokio::test]
async fn a_run_goes_on_elsewhere_from_each_place_at_which_its_process_dies() {
    const PLACES: [&str; 12] = [
        "stamp",
        "before label",
        KEYS[0],
        "before sleep",
        "before pay",
        "before shipped",
        "before label run",
        "before torn",
        "before second",
        KEYS[1],
        "before end",
        "never",
    ];
    let data = tempfile::tempdir().expect("a folder");
    let server = start_when_free(&settings(data.path())).await;
    let open = async |folder: &Path| {
        let options = OpenOptions::new("shops/1").server(format!("ws://{}", server.address()));
        let engine = Engine::in_folder(folder).expect("an engine");
        engine.open(&works(), options).await.expect("a document")
    };
    let folder = || tempfile::tempdir().expect("a folder");
    let (shop_folder, far) = (folder(), FarEnd::default());
    far.dies_at(&PLACES);
    let shop = open(shop_folder.path()).await;
    let _helpers = helpers(&shop);
    let run = start(&shop, "f-1");
    run.confirmed().await.expect("received");
    ship(&shop).confirmed().await.expect("shipped");
    for _ in 1..PLACES.len() {
        let folder = folder();
        let doomed = open(folder.path()).await;
        let handling = doomed.handle_workflow(fulfil(&far), 16).expect("handled");
        until("a death", far.dying.notified()).await;
        drop((handling, doomed));
    }
    let folder = folder();
    let last = open(folder.path()).await;
    let _handling = last.handle_workflow(fulfil(&far), 16).expect("handled");
    let came = until("the end", run.completed()).await.expect("fulfilled");
    assert_eq!(came, outcome());
    // Each that the process died amid was asked twice, by one key.
    let asked = far.asked.lock().expect("a lock").clone();
    assert_eq!(asked, KEYS.map(|key| (key.to_owned(), 2)).into());
    shop.sync().await.expect("synced");
    let counts = "select 'runs ' || count(*) from tidelog_workflows where state = 'completed'
                  union all select 'sent ' || count(*) from tidelog_commands
                  union all select type || ' ' || count(*) from tidelog_events group by type";
    assert_eq!(texts(&shop, counts).await, ["runs 2", "sent 1", "paid 1", "shipped 1"]);
    let kinds = |records: &[String]| -> Vec<String> {
        let of = |it: &String| it.split(' ').take(4).map(str::to_owned).collect::<Vec<_>>();
        records.iter().map(|it| of(it).join(" ")).collect()
    };
    assert_eq!(kinds(&records(&shop, "f-1").await), kinds(&RECORDS.map(str::to_owned)));
}

/// Goal: a run that one engine has begun another one ends, while both are at work at others.
/// Method: three engines at a server of which two handle runs, and one of these closes amid them.
#[tokio::test]
async fn two_engines_share_runs_and_hand_them_over() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start_when_free(&settings(data.path())).await;
    let open = async || {
        let options = OpenOptions::new("shops/1").server(format!("ws://{}", server.address()));
        let engine = Engine::in_memory().expect("an engine");
        engine.open(&works(), options).await.expect("a document")
    };
    let (shop, one, other) = (open().await, open().await, open().await);
    let code = |name: &'static str| {
        Workflow::new("fulfil", async move |ctx: WorkflowContext, Fulfil { order }| {
            let first = ctx.step("first", async || Ok(name.to_owned())).await?;
            ctx.wait_for("order", order, "shipped", None).await?;
            let second = ctx.step("second", async || Ok(name.to_owned())).await?;
            Ok((first, second))
        })
    };
    let handling = one.handle_workflow(code("one"), 2).expect("handled");
    let runs: Vec<_> = (0..8).map(|at| start(&shop, &format!("f-{at}"))).collect();
    for run in &runs {
        run.confirmed().await.expect("received");
    }
    let waiting = "select 'all' from tidelog_workflows where state = 'waiting'";
    until("that all wait", async {
        while texts(&shop, waiting).await.len() < runs.len() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    handling.close().await.expect("closed");
    let _handling = other.handle_workflow(code("other"), 2).expect("handled");
    ship(&shop).confirmed().await.expect("shipped");
    for run in &runs {
        let came = until("the end", run.completed()).await.expect("done");
        assert_eq!(came, object!(["one", "other"]));
    }
}

/// Goal: code hears of what it has done once that is remembered, and not before. Method: the server
/// goes away as a step is done, and with it whoever could remember that.
#[tokio::test]
async fn the_next_step_begins_once_the_one_before_is_remembered() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start_when_free(&settings(data.path())).await;
    let options = OpenOptions::new("shops/1").server(format!("ws://{}", server.address()));
    let engine = Engine::in_memory().expect("an engine");
    let db = engine.open(&works(), options).await.expect("a document");
    let (steps, gate) = (Arc::new(AtomicU32::new(0)), Arc::new(tokio::sync::Notify::new()));
    let (counted, gated) = (Arc::clone(&steps), Arc::clone(&gate));
    let (began, mut has_begun) = tokio::sync::mpsc::unbounded_channel();
    let code = Workflow::new("fulfil", move |ctx: WorkflowContext, _: Fulfil| {
        let (counted, gated, began) = (counted.clone(), gated.clone(), began.clone());
        async move {
            ctx.step("first", async || {
                let _ = began.send(());
                gated.notified().await;
                Ok(counted.fetch_add(1, Ordering::Relaxed))
            })
            .await?;
            ctx.step("second", async || Ok(counted.fetch_add(1, Ordering::Relaxed))).await
        }
    });
    let _handling = db.handle_workflow(code, 1).expect("handled");
    let run = start(&db, "f-1");
    until("the first step", has_begun.recv()).await;
    db.disconnect();
    gate.notify_one();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(steps.load(Ordering::Relaxed), 1, "nobody has remembered the first one");
    db.connect();
    assert_eq!(until("the end", run.completed()).await.expect("done"), object!(1));
}

#[tokio::test]
async fn what_waits_is_put_away_and_its_code_dropped() {
    struct Held(Arc<AtomicU32>);
    impl Drop for Held {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let db = local().await;
    let dropped = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&dropped);
    let code = Workflow::new("fulfil", move |ctx: WorkflowContext, Fulfil { order }| {
        let held = Held(Arc::clone(&counted));
        async move {
            let event = ctx.wait_for("order", order, "shipped", None).await?.expect("an event");
            drop(held);
            Ok((ctx.run.attempt, event.data))
        }
    });
    let handling = db.handle_workflow(code, 1).expect("handled");
    let run = start(&db, "f-1");
    until_it_is(&db, "f-1", "waiting").await;
    let gone = async {
        while dropped.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    until("that it is dropped", gone).await;
    ship(&db).confirmed().await.expect("shipped");
    let came = until("the end", run.completed()).await.expect("done");
    assert_eq!(came, object!([2, { "by": "van" }]));
    // Nothing is at work while a run waits.
    let other = start(&db, "f-2");
    other.confirmed().await.expect("received");
    until("closing", handling.close()).await.expect("closed");
}

#[tokio::test]
async fn a_wait_ends_with_its_time_too() {
    let db = local().await;
    let code = Workflow::new("fulfil", async |ctx: WorkflowContext, Fulfil { order }| {
        let short = Duration::from_millis(20);
        let began = ctx.now_ms();
        let event = ctx.wait_for("order", &order, "shipped", short).await?;
        ctx.sleep_named("rest", short).await?;
        Ok((event.is_none(), ctx.now_ms() - began >= 40))
    });
    let _handling = db.handle_workflow(code, 1).expect("handled");
    let came = until("the end", start(&db, "f-1").completed()).await.expect("done");
    assert_eq!(came, object!([true, true]));
    let names = "select name from tidelog_records order by record";
    assert_eq!(texts(&db, names).await, ["waitFor:order.shipped", "rest"]);
}

#[tokio::test]
async fn a_step_is_tried_again_and_then_has_failed_each_time() {
    let db = local().await;
    let tries = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&tries);
    let code = Workflow::new("fulfil", move |ctx: WorkflowContext, _: Fulfil| {
        let counted = Arc::clone(&counted);
        async move {
            let shaky = ctx.step("shaky", async || match counted.fetch_add(1, Ordering::Relaxed) {
                0 => panic!("there is no paper"),
                nth => Ok(nth),
            });
            let nth = shaky.retries(1).await?;
            let hangs = ctx.step("hangs", async || std::future::pending::<Result<(), _>>().await);
            let hung = hangs.retries(0).timeout(Duration::from_millis(10)).await;
            let large = ctx.step("large", async || Ok("x".repeat(300_000))).await;
            ctx.sleep(Duration::from_millis(1)).await?;
            let reasons = [hung.map(drop), large.map(drop)].map(|it| match it {
                Err(WorkflowError::StepFailed { step, reason }) => format!("{step}: {reason}"),
                other => format!("{other:?}"),
            });
            Ok((nth, reasons, ctx.run.attempt))
        }
    });
    let _handling = db.handle_workflow(code, 1).expect("handled");
    let came = until("the end", start(&db, "f-1").completed()).await.expect("done");
    let large = "large: it comes to more than 262144 bytes of JSON: keep less";
    assert_eq!(came, object!([1, ["hangs: it has taken too long", large], 2]));
    assert_eq!(tries.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn what_the_code_lets_out_is_the_end_of_the_run() {
    let db = local().await;
    let code = Workflow::new("fulfil", async |ctx: WorkflowContext, Fulfil { order }| {
        match ctx.run.id.as_str() {
            "fails" => return Err(ctx.fail("nobody has shipped it")),
            "breaks" => return Err(std::io::Error::other("the disk is full").into()),
            "panics" => panic!("there is no paper"),
            "misspells" => ctx.send("order", "payy", order, &object!({})).await.map(drop)?,
            "is large" => return Ok("x".repeat(300_000)),
            _ => ctx.step("torn", async || Err::<(), _>(StepError::new("no"))).retries(0).await?,
        }
        Ok(String::new())
    });
    let _handling = db.handle_workflow(code, 16).expect("handled");
    let reasons = [
        ("fails", "nobody has shipped it"),
        ("breaks", "the disk is full"),
        ("panics", "the workflow has panicked"),
        ("misspells", "there is no command payy of order"),
        ("is large", "it comes to more than 262144 bytes of JSON: keep less"),
        ("tears", "step torn has failed: no"),
    ];
    for (id, why) in reasons {
        let failed = until(id, start(&db, id).completed()).await.expect_err("it has failed");
        assert!(matches!(&failed, RunError::Failed { reason, .. } if reason == why), "{failed:?}");
    }
}

/// Goal: code that panics holds no run up, wherever that is. Method: a function that panics before
/// it gives its future, and a future that panics as it is dropped, of a run that has to stop: a
/// step of it comes to what JSON makes something else of.
#[tokio::test]
async fn code_that_panics_outside_of_its_future_keeps_no_run() {
    struct Bomb(Arc<AtomicU32>);
    impl Drop for Bomb {
        fn drop(&mut self) {
            assert!(self.0.fetch_add(1, Ordering::Relaxed) > 0, "it is dropped for the first time");
        }
    }
    let (db, drops) = (local().await, Arc::new(AtomicU32::new(0)));
    let dropped = Arc::clone(&drops);
    let code = Workflow::new("fulfil", move |ctx: WorkflowContext, _: Fulfil| {
        assert_ne!(ctx.run.id, "panics");
        let bomb = Bomb(Arc::clone(&dropped));
        async move {
            let came = ctx.step("odd", async || Ok(f64::NAN)).await;
            drop(bomb);
            came
        }
    });
    let handling = db.handle_workflow(code, 1).expect("handled");
    let failed = until("the end", start(&db, "panics").completed()).await.expect_err("it has");
    assert!(matches!(&failed, RunError::Failed { reason, .. } if reason.contains("panicked")));
    start(&db, "stops").confirmed().await.expect("received");
    until_it_is(&db, "stops", "stopped").await;
    assert_eq!(drops.load(Ordering::Relaxed), 2);
    until("closing", handling.close()).await.expect("closed");
}

/// Goal: arguments of another shape fail no run. Method: code that wants a number where there is a
/// text, and then code that fits.
#[tokio::test]
async fn arguments_of_another_type_stop_the_run_until_code_fits() {
    #[derive(Deserialize)]
    struct Odd {
        #[serde(rename = "order")]
        _order: u64,
    }
    let db = local().await;
    let odd = Workflow::new("fulfil", async |_, _: Odd| Ok::<_, WorkflowError>(()));
    let handling = db.handle_workflow(odd, 1).expect("handled");
    let run = start(&db, "f-1");
    until_it_is(&db, "f-1", "stopped").await;
    handling.close().await.expect("closed");
    let fits = Workflow::new("fulfil", async |_, Fulfil { order }| Ok::<_, WorkflowError>(order));
    let _handling = db.handle_workflow(fits, 1).expect("handled");
    assert_eq!(until("the end", run.completed()).await.expect("done"), object!("order-7"));
}

#[tokio::test]
async fn an_id_counts_once() {
    let db = local().await;
    let code = Workflow::new("fulfil", async |ctx: WorkflowContext, _: Fulfil| Ok(ctx.run.number));
    let _handling = db.handle_workflow(code, 1).expect("handled");
    let (first, same) = (start(&db, "f-1"), start(&db, "f-1"));
    assert_eq!(until("the end", first.completed()).await.expect("done"), object!(1));
    assert_eq!(until("the end", same.completed()).await.expect("done"), object!(1));
    let other = db.start("fulfil", &object!({ "order": "o-8" }), StartOptions::id("f-1"));
    let reused = other.confirmed().await.expect_err("it is another one");
    assert!(matches!(reused, RunError::IdReused(name) if name.id == "f-1"));
    let drawn = db.start("fulfil", &object!({ "order": "o-8" }), StartOptions::default());
    assert_eq!(drawn.id().len(), 36);
    until("the end", drawn.completed()).await.expect("done");
}

#[tokio::test]
async fn a_name_that_stands_for_something_else_stops_the_run_until_code_fits() {
    let db = local().await;
    let older = Workflow::new("fulfil", async |ctx: WorkflowContext, Fulfil { order }| {
        ctx.step("label", async || Ok("r-1".to_owned())).await?;
        ctx.wait_for("order", order, "shipped", None).await.map(drop)
    });
    let handling = db.handle_workflow(older, 1).expect("handled");
    let run = start(&db, "f-1");
    until_it_is(&db, "f-1", "waiting").await;
    handling.close().await.expect("closed");
    ship(&db).confirmed().await.expect("shipped");
    let other = Workflow::new("fulfil", async |ctx: WorkflowContext, _: Fulfil| {
        ctx.request("label", async |key| Ok(key)).await
    });
    let handling = db.handle_workflow(other, 1).expect("handled");
    until_it_is(&db, "f-1", "stopped").await;
    let why = texts(&db, "select reason from tidelog_workflows").await;
    assert_eq!(why, ["it remembers a step as number 0 of label, which is none any more"]);
    handling.close().await.expect("closed");
    // What was a text is none any more.
    let odd = Workflow::new("fulfil", async |ctx: WorkflowContext, _: Fulfil| {
        ctx.step("label", async || Ok(7)).await
    });
    let handling = db.handle_workflow(odd, 1).expect("handled");
    let reasons = "select coalesce(reason, '') from tidelog_workflows";
    let is_odd = async {
        while !texts(&db, reasons).await[0].contains("no such type") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    until("another reason", is_odd).await;
    handling.close().await.expect("closed");
    let fits = Workflow::new("fulfil", async |ctx: WorkflowContext, _: Fulfil| {
        ctx.step("label", async || Ok("r-2".to_owned())).await
    });
    let _handling = db.handle_workflow(fits, 1).expect("handled");
    assert_eq!(until("the end", run.completed()).await.expect("done"), object!("r-1"));
}

#[tokio::test]
async fn a_run_that_is_cancelled_hears_of_it_once_and_puts_right_what_was_done() {
    let db = local().await;
    let _helpers = helpers(&db);
    let child = Workflow::new("rounds", async |ctx: WorkflowContext, _: Json| {
        ctx.sleep(Duration::from_secs(3600)).await
    });
    let _children = db.handle_workflow(child, 1).expect("handled");
    let code = Workflow::new("fulfil", async |ctx: WorkflowContext, Fulfil { order }| {
        // Nobody waits for it, and so it hears of nothing in place of the code.
        let _round = ctx.start::<()>("rounds", &object!({ "left": 1 }));
        let slept = ctx.sleep(Duration::from_secs(3600)).await;
        if ctx.run.id == "lets it out" {
            return slept;
        }
        assert!(matches!(slept, Err(WorkflowError::Cancelled)), "{slept:?}");
        ctx.send("order", "pay", &order, &object!({})).await?;
        ctx.step("sweep", async || Ok(())).await
    });
    let _handling = db.handle_workflow(code, 16).expect("handled");
    let (kept, out) = (start(&db, "puts right"), start(&db, "lets it out"));
    for id in ["puts right", "lets it out"] {
        until_it_is(&db, id, "waiting").await;
        db.cancel("fulfil", id).confirmed().await.expect("cancelled");
    }
    assert_eq!(until("the end", kept.completed()).await.expect("done"), Json::Null);
    let cancelled = until("the end", out.completed()).await.expect_err("it was");
    assert!(matches!(cancelled, RunError::Cancelled(name) if name.id == "lets it out"));
    let children = "select distinct state from tidelog_workflows where workflow = 'rounds'";
    until("the children", async {
        while texts(&db, children).await != ["cancelled"] {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let kept = records(&db, "puts right").await;
    for name in ["sleep 0 cancel", "send:order.pay 0 command done", "sweep 0 step done"] {
        assert!(kept.iter().any(|it| it.starts_with(name)), "{kept:?}");
    }
}

#[tokio::test]
async fn a_run_that_is_cancelled_amid_a_step_hears_of_it_at_the_next_thing() {
    let db = local().await;
    let gate = Arc::new(tokio::sync::Notify::new());
    let gated = Arc::clone(&gate);
    let (began, mut has_begun) = tokio::sync::mpsc::unbounded_channel();
    let code = Workflow::new("fulfil", move |ctx: WorkflowContext, _: Fulfil| {
        let (gated, began) = (Arc::clone(&gated), began.clone());
        async move {
            ctx.step("long", async || {
                let _ = began.send(());
                gated.notified().await;
                Ok(())
            })
            .await?;
            let next = ctx.step("next", async || Ok(())).await;
            Ok(matches!(next, Err(WorkflowError::Cancelled)))
        }
    });
    let _handling = db.handle_workflow(code, 1).expect("handled");
    let run = start(&db, "f-1");
    until("the step", has_begun.recv()).await;
    db.cancel("fulfil", "f-1").confirmed().await.expect("cancelled");
    gate.notify_one();
    assert_eq!(until("the end", run.completed()).await.expect("done"), object!(true));
}

/// Goal: a cancel is not lost in what the code has and does not look at. Method: one that keeps
/// what has lost a race, and is cancelled while it waits for something else, or is at work.
#[tokio::test]
async fn what_has_lost_a_race_and_is_kept_does_not_hear_of_a_cancel() {
    let db = local().await;
    let gate = Arc::new(tokio::sync::Notify::new());
    let (gated, (began, mut has_begun)) =
        (Arc::clone(&gate), tokio::sync::mpsc::unbounded_channel());
    let code = Workflow::new("fulfil", move |ctx: WorkflowContext, Fulfil { order }| {
        let (gated, began) = (Arc::clone(&gated), began.clone());
        async move {
            let mut deadline = ctx.sleep(Duration::from_secs(3600));
            tokio::select! {
                it = &mut deadline => it?,
                it = ctx.step("quick", async || Ok(())) => it?,
            }
            if ctx.run.id == "at work" {
                ctx.step("long", async || {
                    let _ = began.send(());
                    gated.notified().await;
                    Ok(())
                })
                .await?;
            }
            let later = ctx.wait_for("order", &order, "shipped", None).await;
            Ok(matches!(later, Err(WorkflowError::Cancelled)))
        }
    });
    let _handling = db.handle_workflow(code, 16).expect("handled");
    let waits = start(&db, "waits");
    until_it_is(&db, "waits", "waiting").await;
    db.cancel("fulfil", "waits").confirmed().await.expect("cancelled");
    assert_eq!(until("the end", waits.completed()).await.expect("done"), object!(true));
    let works = start(&db, "at work");
    until("the step", has_begun.recv()).await;
    db.cancel("fulfil", "at work").confirmed().await.expect("cancelled");
    // It has time to hear of that amid the step, where it must not.
    tokio::time::sleep(Duration::from_millis(50)).await;
    gate.notify_one();
    assert_eq!(until("the end", works.completed()).await.expect("done"), object!(true));
}

#[tokio::test]
async fn a_run_goes_on_as_new_and_remembers_nothing() {
    let db = local().await;
    let code = Workflow::new("rounds", async |ctx: WorkflowContext, args: Json| {
        let key: String = ctx.request("round", async |key| Ok(key)).await?;
        match args["left"].as_i64() {
            Some(0) => Ok(key),
            left => Err(ctx.continue_as_new(&object!({ "left": left.map(|it| it - 1) }))),
        }
    });
    let _handling = db.handle_workflow(code, 1).expect("handled");
    let run = db.start("rounds", &object!({ "left": 2 }), StartOptions::id("r-1"));
    let came = until("the end", run.completed()).await.expect("done");
    let number = came.as_str().and_then(|it| it.split(['~', '/']).nth(2)).expect("a number");
    assert_eq!(came, object!(format!("rounds/r-1~{number}/round/0")));
    assert_ne!(number, "1", "what goes on as new asks by new keys");
}

/// Goal: an event that has lost a race is given to what the run goes on as. Method: both that it
/// waits for happen while nobody handles it, so that it is told of the first with both at hand.
#[tokio::test]
async fn what_has_lost_a_race_is_there_for_what_goes_on_as_new() {
    let db = local().await;
    let code = || {
        Workflow::new("rounds", async |ctx: WorkflowContext, args: Json| {
            let [one, two] =
                ["order-7", "order-8"].map(|it| ctx.wait_for("order", it, "shipped", None));
            let first = tokio::select! { it = one => it?, it = two => it? };
            match args["left"].as_i64() {
                Some(0) => Ok(first.map(|it| it.stream)),
                left => Err(ctx.continue_as_new(&object!({ "left": left.map(|it| it - 1) }))),
            }
        })
    };
    let handling = db.handle_workflow(code(), 1).expect("handled");
    let run = db.start("rounds", &object!({ "left": 1 }), StartOptions::id("r-1"));
    until_it_is(&db, "r-1", "waiting").await;
    handling.close().await.expect("closed");
    for order in ["order-7", "order-8"] {
        let args = [("id", order.into()), ("by", "van".into())];
        db.mutate("ship", args).confirmed().await.expect("shipped");
    }
    let _handling = db.handle_workflow(code(), 1).expect("handled");
    assert_eq!(until("the end", run.completed()).await.expect("done"), object!("order-8"));
}

/// Goal: what may have been carried out is known when a run is over, also where it was cancelled.
/// Method: whoever asks for it is gone amid that, the run is cancelled, and somebody else goes on.
#[tokio::test]
async fn a_request_that_was_begun_is_asked_once_more_before_its_run_hears_of_a_cancel() {
    let db = local().await;
    let (asked, mut keys) = tokio::sync::mpsc::unbounded_channel();
    let code = |answers: bool| {
        let asked = asked.clone();
        Workflow::new("fulfil", move |ctx: WorkflowContext, _: Fulfil| {
            let asked = asked.clone();
            async move {
                let carry_out = async |key: String| {
                    asked.send(key).expect("somebody listens");
                    if !answers {
                        std::future::pending::<()>().await;
                    }
                    Ok("paid".to_owned())
                };
                let paid: String = ctx.request("pay", carry_out).await?;
                ctx.step("ship", async || Ok(paid.clone())).await
            }
        })
    };
    let handling = db.handle_workflow(code(false), 1).expect("handled");
    let run = start(&db, "f-1");
    let first = until("a request", keys.recv()).await;
    until("what is known of it", async {
        while records(&db, "f-1").await != ["pay 0 request started -"] {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    drop(handling);
    db.cancel("fulfil", "f-1").confirmed().await.expect("cancelled");
    let _handling = db.handle_workflow(code(true), 1).expect("handled");
    let end = until("the end", run.completed()).await.expect_err("it was cancelled");
    assert!(matches!(end, RunError::Cancelled(_)), "{end:?}");
    assert_eq!(until("a request", keys.recv()).await, first, "by the same key");
    let known = ["pay 0 request done \"paid\"", "ship 0 cancel failed -"];
    assert_eq!(records(&db, "f-1").await, known);
}

/// Goal: of two things that race the same one wins each time. Method: code that races waits and
/// steps, and goes on in many attempts.
#[tokio::test]
async fn what_races_comes_out_the_same_at_each_attempt() {
    let db = local().await;
    let begun = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&begun);
    let code = Workflow::new("fulfil", move |ctx: WorkflowContext, Fulfil { order }| {
        let counted = Arc::clone(&counted);
        async move {
            // Called in this order, whichever is polled first.
            let slow = ctx.step("slow", async || {
                counted.fetch_add(1, Ordering::Relaxed);
                std::future::pending::<Result<&str, StepError>>().await.map(str::to_owned)
            });
            let quick = ctx.step("quick", async || Ok("quick".to_owned()));
            let first = tokio::select! { it = slow => it?, it = quick => it? };
            let shipped = ctx.wait_for("order", &order, "shipped", None);
            let slept = ctx.sleep(Duration::from_millis(5));
            let second = tokio::select! {
                it = shipped => it?.map_or("nothing", |_| "shipped"),
                it = slept => it.map(|()| "slept")?,
            };
            for _ in 0..3 {
                ctx.sleep(Duration::from_millis(1)).await?;
            }
            Ok((first, second.to_owned(), ctx.run.attempt > 3))
        }
    });
    let _handling = db.handle_workflow(code, 1).expect("handled");
    let came = until("the end", start(&db, "f-1").completed()).await.expect("done");
    assert_eq!(came, object!(["quick", "slept", true]));
    assert_eq!(begun.load(Ordering::Relaxed), 1, "what was given up is not begun again");
}

/// Goal: what has happened first wins, whatever the code does in between. Method: two things that
/// happen while nobody handles the run, of which the first has others come first a few times, and
/// the second is looked at first.
#[tokio::test]
async fn code_comes_to_rest_before_it_hears_of_the_next_thing() {
    let db = local().await;
    let _helpers = helpers(&db);
    let code = || {
        Workflow::new("fulfil", async |ctx: WorkflowContext, Fulfil { order }| {
            let first = ctx.wait_for("order", &order, "paid", None);
            let second = ctx.wait_for("order", &order, "shipped", None);
            let slow = async {
                first.await?;
                for _ in 0..5 {
                    tokio::task::yield_now().await;
                }
                Ok::<_, WorkflowError>("first")
            };
            tokio::select! {
                biased;
                it = second => it.map(|_| "second"),
                it = slow => it,
            }
        })
    };
    let handling = db.handle_workflow(code(), 1).expect("handled");
    let run = start(&db, "f-1");
    until_it_is(&db, "f-1", "waiting").await;
    handling.close().await.expect("closed");
    let pay = db.send("order", "pay", "order-7", &object!({}), SendOptions::default());
    until("the pay", pay.completed()).await.expect("paid");
    ship(&db).confirmed().await.expect("shipped");
    let _handling = db.handle_workflow(code(), 1).expect("handled");
    assert_eq!(until("the end", run.completed()).await.expect("done"), object!("first"));
}

/// Goal: a step that never comes to rest holds nothing else of its run up. Method: one that lets
/// others come first until another one, and what follows from it, is done.
#[tokio::test]
async fn a_restless_step_holds_no_other_one_up() {
    let db = local().await;
    let code = Workflow::new("fulfil", async |ctx: WorkflowContext, _: Fulfil| {
        let is_done = std::sync::atomic::AtomicBool::new(false);
        let restless = ctx.step("restless", async || {
            while !is_done.load(Ordering::Relaxed) {
                tokio::task::yield_now().await;
            }
            Ok(())
        });
        let others = async {
            ctx.step("other", async || Ok(())).await?;
            ctx.step("last", async || Ok(())).await?;
            is_done.store(true, Ordering::Relaxed);
            Ok(())
        };
        tokio::try_join!(restless.retries(0), others).map(drop)
    });
    let _handling = db.handle_workflow(code, 1).expect("handled");
    until("the end", start(&db, "f-1").completed()).await.expect("done");
    let names = "select name from tidelog_records order by record";
    assert_eq!(texts(&db, names).await, ["other", "last", "restless"]);
}

#[tokio::test]
async fn several_things_are_waited_for_at_once() {
    let db = local().await;
    let _helpers = helpers(&db);
    let code = Workflow::new("fulfil", async |ctx: WorkflowContext, _: Fulfil| {
        let pay = |at: u32| ctx.send("order", "pay", format!("order-{at}"), &object!({}));
        let (one, other, label, step) = tokio::join!(
            pay(1),
            pay(2),
            ctx.start::<i64>("label", &object!({ "weight": 4 })),
            ctx.step("here", async || Ok(1)),
        );
        let both = one?.is_some() && other?.is_some();
        let later: Vec<_> = (0..40).map(|_| ctx.sleep(Duration::from_millis(1))).collect();
        for wait in later.into_iter().rev() {
            wait.await?;
        }
        Ok((both, label?, step?))
    });
    let _handling = db.handle_workflow(code, 1).expect("handled");
    let came = until("the end", start(&db, "f-1").completed()).await.expect("done");
    assert_eq!(came, object!([true, 8, 1]));
    let streams = "select stream from tidelog_commands order by number";
    assert_eq!(texts(&db, streams).await, ["order-1", "order-2"]);
}

#[tokio::test]
async fn a_child_or_a_command_that_fails_says_why() {
    let db = local().await;
    let orders = Handler::new("order", (), |(), _| ())
        .command("pay", async |ctx, _: Json| Err(ctx.fail("refused")));
    let _orders = db.handle(orders, 1).expect("handled");
    let label = Workflow::new("label", async |ctx: WorkflowContext, _: Label| {
        Err::<(), _>(ctx.fail("no paper"))
    });
    let _labels = db.handle_workflow(label, 1).expect("handled");
    let code = Workflow::new("fulfil", async |ctx: WorkflowContext, Fulfil { order }| {
        let paid = ctx.send("order", "pay", order, &object!({})).await;
        let label = ctx.start::<()>("label", &object!({ "weight": 1 })).await;
        match (paid, label) {
            (
                Err(WorkflowError::CommandFailed { reason: paid, .. }),
                Err(WorkflowError::RunFailed { reason: label, .. }),
            ) => Ok((paid, label)),
            odd => Err(ctx.fail(format!("{odd:?}"))),
        }
    });
    let _handling = db.handle_workflow(code, 1).expect("handled");
    let came = until("the end", start(&db, "f-1").completed()).await.expect("done");
    assert_eq!(came, object!(["refused", "no paper"]));
}

#[tokio::test]
async fn a_run_keeps_its_version_and_what_nobody_handles_waits() {
    let db = local().await;
    let older = Workflow::versions("fulfil")
        .version(1, async |_, _: Fulfil| Ok::<_, WorkflowError>("older"));
    let _older = db.handle_workflow(older, 1).expect("handled");
    let run = start(&db, "f-1");
    run.confirmed().await.expect("received");
    let waits = tokio::time::timeout(Duration::from_millis(100), run.completed()).await;
    assert!(waits.is_err(), "that is version 2");
    let newest =
        Workflow::new("fulfil", async |ctx: WorkflowContext, _: Fulfil| Ok(ctx.run.version));
    let _newest = db.handle_workflow(newest, 1).expect("handled");
    assert_eq!(until("the end", run.completed()).await.expect("done"), object!(2));
}

#[tokio::test]
async fn what_cannot_be_handled_is_refused() {
    let db = local().await;
    let code = async |_: WorkflowContext, _: Json| Ok(());
    let refused = |workflow| db.handle_workflow(workflow, 1).expect_err("refused").code;
    let invalid = ErrorCode::InvalidOption;
    assert_eq!(refused(Workflow::new("fulfill", code)), invalid);
    assert_eq!(refused(Workflow::versions("fulfil")), invalid);
    assert_eq!(refused(Workflow::versions("fulfil").version(3, code)), invalid);
    assert_eq!(refused(Workflow::versions("fulfil").version(0, code)), invalid);
    let known = Workflow::new("fulfil", code);
    assert_eq!(db.handle_workflow(known, 0).expect_err("refused").code, invalid);
}
