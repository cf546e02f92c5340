//! `tidelog config print`: the settings in force, and where each came from.

use std::ffi::OsStr;
use std::fmt;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, Subcommand};
use serde_json::json;

use super::{CommandError, say};
use crate::settings::{Serve, USERS, password_variables};

/// What stands in the place of a secret.
const MASK: &str = "********";
/// What a setting is that nobody has set, and that has no default.
const UNSET: &str = "not set";

/// `tidelog config`.
#[derive(Args, Clone, Debug)]
pub struct Config {
    /// What is to be done.
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// What can be done.
#[derive(Clone, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print what `tidelog serve` would do with the same flags, here and now: each setting, and
    /// where it comes from. Passwords and their hashes are masked; of files only names are printed
    Print(Print),
}

/// Flags of `tidelog config print`.
#[derive(Args, Clone, Debug)]
pub struct Print {
    /// Those of `tidelog serve`.
    #[command(flatten)]
    pub serve: Serve,

    /// Print a line of JSON for each setting
    #[arg(long)]
    pub json: bool,
}

/// A setting, and what it is.
#[derive(Debug, PartialEq, Eq)]
struct Setting {
    /// As the file has it, or as the variable is called.
    name: String,
    value: String,
    from: From,
}

#[derive(Debug, PartialEq, Eq)]
enum From {
    Flag(String),
    Variable(String),
    File(String),
    Default,
}

impl fmt::Display for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) | Self::Variable(name) | Self::File(name) => f.write_str(name),
            Self::Default => f.write_str("default"),
        }
    }
}

impl Config {
    /// Prints all settings. `matches` are those of this command, that its flags were read from.
    ///
    /// # Errors
    ///
    /// [`CommandError::Usage`] if `tidelog serve` would end with 2.
    pub fn run(self, matches: &ArgMatches) -> Result<(), CommandError> {
        let ConfigCommand::Print(Print { serve, json }) = self.command;
        let matches = matches.subcommand_matches("print").expect("BUG: it is the only one");
        let file = match &serve.config {
            None => None,
            Some(path) => {
                let text = std::fs::read_to_string(path).unwrap_or_default();
                Some((path.display().to_string(), text.parse::<toml::Table>().unwrap_or_default()))
            }
        };
        // The file is read and looked through there: what is wrong with it is told.
        serve.resolve().map_err(CommandError::usage)?;
        let command = Print::augment_args(clap::Command::new("print"));
        let is_setting = |arg: &&Arg| env_of(arg).is_some();
        let mut settings: Vec<Setting> = command
            .get_arguments()
            .filter(is_setting)
            .map(|arg| setting(arg, matches, file.as_ref()))
            .collect();
        settings.extend(passwords(&|name| std::env::var_os(name).is_some()));
        for Setting { name, value, from } in settings {
            match json {
                true => say(json!({ "setting": name, "value": value, "from": from.to_string() }))?,
                false => say(format_args!("{name} = {value}    # {from}"))?,
            }
        }
        Ok(())
    }
}

fn env_of(arg: &Arg) -> Option<String> {
    arg.get_env().and_then(OsStr::to_str).map(str::to_owned)
}

/// What one of the flags of `tidelog serve` is, if it was given, or what else says it.
fn setting(arg: &Arg, matches: &ArgMatches, file: Option<&(String, toml::Table)>) -> Setting {
    let id = arg.get_id().as_str();
    let variable = env_of(arg).expect("BUG: it has one");
    let name = variable.trim_start_matches("TIDELOG_").to_ascii_lowercase();
    let flag = || From::Flag(format!("--{}", arg.get_long().unwrap_or(id)));
    let given = match matches.value_source(id) {
        Some(ValueSource::CommandLine) => Some(flag()),
        Some(ValueSource::EnvVariable) => Some(From::Variable(variable)),
        _ => None,
    };
    let raw = given.and_then(|from| Some((from, matches.get_raw(id)?)));
    if let Some((from, values)) = raw {
        let values: Vec<_> = values.map(|it| it.to_string_lossy().into_owned()).collect();
        return Setting { name, value: values.join(","), from };
    }
    if let Some((path, table)) = file
        && let Some(value) = table.get(&name)
    {
        let value = match value {
            toml::Value::Array(all) => all.iter().map(plain).collect::<Vec<_>>().join(","),
            other => plain(other),
        };
        return Setting { name, value, from: From::File(path.clone()) };
    }
    Setting { name, value: default_of(arg), from: From::Default }
}

fn plain(value: &toml::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// What its help says that it is by default.
fn default_of(arg: &Arg) -> String {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let default = help.split_once("[default: ").and_then(|(_, rest)| rest.split_once(']'));
    match default {
        Some((value, _)) => value.to_owned(),
        None if arg.get_id() == "dev" => "false".to_owned(),
        None => UNSET.to_owned(),
    }
}

/// The passwords that are set, which have no flags.
fn passwords(is_set: &dyn Fn(&str) -> bool) -> Vec<Setting> {
    let variables = USERS.iter().flat_map(|(user, _)| password_variables(user));
    let set = variables.filter(|name| is_set(name));
    set.map(|name| {
        let value = match name.ends_with("_FILE") {
            true => std::env::var_os(&name).unwrap_or_default().to_string_lossy().into_owned(),
            false => MASK.to_owned(),
        };
        Setting { value, from: From::Variable(name.clone()), name }
    })
    .collect()
}
