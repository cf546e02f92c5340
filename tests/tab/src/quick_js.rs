//! QuickJS, an engine that has nothing of a browser.

use std::cell::RefCell;

use rquickjs::function::{Args, IntoArgs};
use rquickjs::loader::{BuiltinLoader, BuiltinResolver};
use rquickjs::{
    Array, CatchResultExt, Context, Ctx, FromJs, Function, IntoJs, Module, Object, Result, Runtime,
    Type,
};
use serde_json::Value;

use crate::MODULES;

thread_local! {
    static ENGINE: RefCell<Option<(Runtime, Context)>> = const { RefCell::new(None) };
}

/// See `machine.js`, as for the others.
pub(crate) fn step(tab: u32, now: f64, input: &Value) -> Value {
    let Json(effects) = engine(|context| call(context, "step", (tab, now, Json(input))));
    effects
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

/// What JSON can say, without its text: to write and to read that would take longer than the step.
struct Json<T>(T);

impl<'js> IntoJs<'js> for Json<&Value> {
    fn into_js(self, context: &Ctx<'js>) -> Result<rquickjs::Value<'js>> {
        match self.0 {
            Value::Null => Ok(rquickjs::Value::new_null(context.clone())),
            Value::Bool(truth) => truth.into_js(context),
            Value::Number(number) => {
                let number = number.as_f64().expect("BUG: no number");
                Ok(rquickjs::Value::new_number(context.clone(), number))
            }
            Value::String(text) => text.as_str().into_js(context),
            Value::Array(items) => {
                let array = Array::new(context.clone())?;
                for (index, item) in items.iter().enumerate() {
                    array.set(index, Json(item))?;
                }
                array.into_js(context)
            }
            Value::Object(fields) => {
                let object = Object::new(context.clone())?;
                for (name, field) in fields {
                    object.set(name, Json(field))?;
                }
                object.into_js(context)
            }
        }
    }
}

impl<'js> FromJs<'js> for Json<Value> {
    fn from_js(context: &Ctx<'js>, value: rquickjs::Value<'js>) -> Result<Self> {
        let value = match value.type_of() {
            Type::Undefined | Type::Null => Value::Null,
            Type::Bool => Value::from(bool::from_js(context, value)?),
            Type::Int => Value::from(i32::from_js(context, value)?),
            Type::Float => number_of(f64::from_js(context, value)?),
            Type::String => Value::from(String::from_js(context, value)?),
            Type::Array => {
                let items = Array::from_js(context, value)?;
                let items = items.iter().map(|item| item.map(|Self(item)| item));
                Value::Array(items.collect::<Result<_>>()?)
            }
            // See `machine.js`.
            Type::Exception => {
                let error = Object::from_js(context, value)?;
                let field = |name| Ok((String::from(name), error.get::<_, Self>(name)?.0));
                let fields = ["code", "outcome", "message"].into_iter().map(field);
                Value::Object(fields.collect::<Result<_>>()?)
            }
            _ => {
                let mut fields = serde_json::Map::new();
                for field in Object::from_js(context, value)?.props() {
                    let (name, field): (String, rquickjs::Value<'js>) = field?;
                    if !field.is_undefined() {
                        fields.insert(name, Self::from_js(context, field)?.0);
                    }
                }
                Value::Object(fields)
            }
        };
        Ok(Self(value))
    }
}

/// A number that is whole is one in JSON too; one without end is null there.
#[expect(clippy::cast_possible_truncation, reason = "compared afterwards")]
#[expect(clippy::cast_precision_loss, reason = "the same")]
fn number_of(number: f64) -> Value {
    let whole = number as i64;
    if whole as f64 == number { Value::from(whole) } else { Value::from(number) }
}
