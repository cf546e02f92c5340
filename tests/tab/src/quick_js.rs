//! QuickJS, an engine that has nothing of a browser.

use std::cell::RefCell;

use rquickjs::function::{Args, IntoArgs};
use rquickjs::loader::{BuiltinLoader, BuiltinResolver};
use rquickjs::{CatchResultExt, Context, Ctx, FromJs, Function, Module, Runtime};

use crate::MODULES;

thread_local! {
    static ENGINE: RefCell<Option<(Runtime, Context)>> = const { RefCell::new(None) };
}

/// See `machine.js`, as for the others.
pub(crate) fn step(tab: u32, now: f64, input: &str) -> String {
    engine(|context| call(context, "step", (tab, now, input)))
}

pub(crate) fn number(tab: u32, kind: &str) -> u32 {
    engine(|context| call(context, "number", (tab, kind)))
}

pub(crate) fn forget(tab: u32) {
    let _: bool = engine(|context| call(context, "forget", (tab,)));
}

fn engine<T>(work: impl FnOnce(&Ctx<'_>) -> T) -> T {
    ENGINE.with_borrow_mut(|engine| {
        let (_, context) = engine.get_or_insert_with(start);
        context.with(|context| work(&context))
    })
}

/// An engine with the modules loaded.
fn start() -> (Runtime, Context) {
    let runtime = Runtime::new().expect("BUG: no memory for an engine");
    let mut resolver = BuiltinResolver::default();
    let mut loader = BuiltinLoader::default();
    for (name, source) in MODULES {
        resolver.add_module(name);
        loader.add_module(name, source);
    }
    runtime.set_loader(resolver, loader);
    let context = Context::full(&runtime).expect("BUG: no memory for an engine");
    context.with(|context| {
        // Whether a fault that was planted in `tab.ts` is switched on.
        let planted = std::env::var("TIDELOG_PLANTED").unwrap_or_default();
        context.globals().set("planted", planted).expect("BUG: no memory for a name");
        let loaded = Module::evaluate(context.clone(), "js", "import './machine.js';")
            .and_then(|module| module.finish::<()>());
        loaded.catch(&context).unwrap_or_else(|error| panic!("BUG: tab.ts: {error}"));
    });
    (runtime, context)
}

fn call<'js, T: FromJs<'js>>(context: &Ctx<'js>, name: &str, args: impl IntoArgs<'js>) -> T {
    let run = || {
        let function: Function<'js> = context.globals().get(name)?;
        let mut list = Args::new(context.clone(), args.num_args());
        args.into_args(&mut list)?;
        function.call_arg(list)
    };
    run().catch(context).unwrap_or_else(|error| panic!("BUG: a tab threw: {error}"))
}
