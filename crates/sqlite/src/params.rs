//! What a query's parameters are bound to.

use tidelog_types::Value;

use crate::failure::Failure;

/// Values for the parameters of a query.
///
/// Each parameter must have a value and each value a parameter; else the query fails with
/// [`Failure::Sql`].
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Params {
    /// There are none.
    #[default]
    None,
    /// By place, from the first parameter on.
    Positional(Vec<Value>),
    /// By name, with or without the prefix `:`, `@` or `$`.
    Named(Vec<(String, Value)>),
}

impl Params {
    /// One value for each of `names`, the parameters of a statement in their order (`None` for
    /// `?`).
    pub(crate) fn arrange(&self, names: &[Option<String>]) -> Result<Vec<&Value>, Failure> {
        match self {
            Self::None => by_place(&[], names),
            Self::Positional(values) => by_place(values, names),
            Self::Named(pairs) => by_name(pairs, names),
        }
    }
}

fn by_place<'v>(values: &'v [Value], names: &[Option<String>]) -> Result<Vec<&'v Value>, Failure> {
    if values.len() == names.len() {
        return Ok(values.iter().collect());
    }
    Err(Failure::sql(format!("{} parameters, but {} values", names.len(), values.len())))
}

fn by_name<'v>(
    pairs: &'v [(String, Value)],
    names: &[Option<String>],
) -> Result<Vec<&'v Value>, Failure> {
    let unused = pairs
        .iter()
        .find(|(given, _)| !names.iter().flatten().any(|name| same_parameter(given, name)));
    if let Some((name, _)) = unused {
        return Err(Failure::sql(format!("no parameter is called {name}")));
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
        let values = params.arrange(&names(&["$b", ":a"])).unwrap();
        assert_eq!(values, [&Value::Integer(2), &Value::Integer(1)]);
    }

    #[test]
    fn a_value_too_many_and_one_too_few_are_errors() {
        let one = Params::Positional(vec![Value::Null]);
        assert!(one.arrange(&names(&[])).is_err());
        assert!(one.arrange(&names(&["?", "?"])).is_err());
        assert!(Params::None.arrange(&names(&["?"])).is_err());
        let named = Params::Named(vec![("a".into(), Value::Null)]);
        assert!(named.arrange(&names(&[])).is_err());
        assert!(named.arrange(&names(&[":a", ":b"])).is_err());
        assert!(named.arrange(&names(&[":a", "?"])).is_err());
    }
}
