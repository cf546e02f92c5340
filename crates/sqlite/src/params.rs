//! What a query's parameters are bound to.

use tidelog_types::{Params, Value};

use crate::failure::Failure;

/// Parameters that a message names, at most.
const LISTED_NAMES_MAX: usize = 8;

/// One value for each of `names`, the parameters of a statement in their order (`None` for `?`).
///
/// # Errors
///
/// [`Failure::Sql`] if a parameter has no value, or a value no parameter.
pub(crate) fn arrange<'v>(
    params: &'v Params,
    names: &[Option<String>],
) -> Result<Vec<&'v Value>, Failure> {
    match params {
        Params::Positional(values) => by_place(values, names),
        Params::Named(pairs) => by_name(pairs, names),
    }
}

fn by_place<'v>(values: &'v [Value], names: &[Option<String>]) -> Result<Vec<&'v Value>, Failure> {
    if values.len() == names.len() {
        return Ok(values.iter().collect());
    }
    Err(Failure::sql(format!("it has {}, and is given {} values", listed(names), values.len())))
}

fn by_name<'v>(
    pairs: &'v [(String, Value)],
    names: &[Option<String>],
) -> Result<Vec<&'v Value>, Failure> {
    let unused = pairs
        .iter()
        .find(|(given, _)| !names.iter().flatten().any(|name| same_parameter(given, name)));
    if let Some((name, _)) = unused {
        return Err(Failure::sql(format!(
            "no parameter is called {name}: it has {}",
            listed(names)
        )));
    }
    let find = |name: &Option<String>| match name {
        None => Err(Failure::sql("a parameter without a name, but values by name")),
        Some(name) => pairs
            .iter()
            .find(|(given, _)| same_parameter(given, name))
            .map(|(_, value)| value)
            .ok_or_else(|| Failure::sql(format!("no value for parameter {name}"))),
    };
    names.iter().map(find).collect()
}

/// The parameters that there are, in words: how many, and the first of those that have names.
fn listed(names: &[Option<String>]) -> String {
    let count = names.len();
    let named: Vec<&str> =
        names.iter().filter_map(Option::as_deref).take(LISTED_NAMES_MAX).collect();
    match named.as_slice() {
        [] => format!("{count} parameters"),
        named if named.len() < LISTED_NAMES_MAX => {
            format!("{count} parameters ({})", named.join(", "))
        }
        named => format!("{count} parameters ({}, …)", named.join(", ")),
    }
}

/// Whether `given` (with or without prefix) means the parameter `name` (with prefix).
fn same_parameter(given: &str, name: &str) -> bool {
    given == name || given == &name[1..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<Option<String>> {
        names.iter().map(|name| (*name != "?").then(|| (*name).to_owned())).collect()
    }

    #[test]
    fn names_match_with_and_without_their_prefix() {
        let params =
            Params::Named(vec![("a".into(), Value::Integer(1)), ("$b".into(), Value::Integer(2))]);
        let values = arrange(&params, &names(&["$b", ":a"])).unwrap();
        assert_eq!(values, [&Value::Integer(2), &Value::Integer(1)]);
    }

    #[test]
    fn a_message_names_a_few_parameters_and_counts_them_all() {
        let many: Vec<Option<String>> = (0..3_000).map(|nth| Some(format!(":p{nth}"))).collect();
        let said = arrange(&Params::NONE, &many).unwrap_err().to_string();
        assert!(said.contains("3000 parameters (:p0, :p1,") && said.len() < 200, "{said}");
    }

    #[test]
    fn a_value_too_many_and_one_too_few_are_errors() {
        let one = Params::Positional(vec![Value::Null]);
        assert!(arrange(&one, &names(&[])).is_err());
        assert!(arrange(&one, &names(&["?", "?"])).is_err());
        assert!(arrange(&Params::NONE, &names(&["?"])).is_err());
        let named = Params::Named(vec![("a".into(), Value::Null)]);
        assert!(arrange(&named, &names(&[])).is_err());
        assert!(arrange(&named, &names(&[":a", ":b"])).is_err());
        assert!(arrange(&named, &names(&[":a", "?"])).is_err());
    }
}
