//! What is wrong with a call, in CPython's words.

use super::bind::{Arguments, Kind, Parameter, Parameters};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyString;

/// The error of a call that the function called `function` does not accept.
#[cold]
pub(super) fn call(py: Python<'_>, parameters: &Parameters, arguments: &Arguments<'_>, function: &str) -> PyErr {
    let text = keyword(py, parameters, arguments)
        .or_else(|| too_many(parameters, arguments))
        .or_else(|| missing(py, parameters, arguments));
    PyTypeError::new_err(format!("{function}() {}", text.unwrap_or_else(|| "got other arguments".to_owned())))
}

/// Positional-only arguments as keywords, unknown keywords, and arguments that are given twice.
fn keyword(py: Python<'_>, parameters: &Parameters, arguments: &Arguments<'_>) -> Option<String> {
    let mut seen = vec![false; parameters.all.len()];
    seen.iter_mut().take(arguments.positional.min(parameters.positional)).for_each(|seen| *seen = true);
    for (name, _) in arguments.keywords() {
        let Some(index) = parameters.keyword(name) else {
            if parameters.var_keyword {
                continue;
            }
            let name = text_of(py, name);
            let only = positional_only(py, parameters, arguments);
            return Some(if only.is_empty() {
                format!("got an unexpected keyword argument '{name}'")
            } else {
                format!("got some positional-only arguments passed as keyword arguments: '{}'", only.join(", "))
            });
        };
        if std::mem::replace(&mut seen[index], true) {
            return Some(format!("got multiple values for argument '{}'", text_of(py, name)));
        }
    }
    None
}

/// The names of positional-only parameters that were given as keywords.
fn positional_only(py: Python<'_>, parameters: &Parameters, arguments: &Arguments<'_>) -> Vec<String> {
    let given: Vec<String> = arguments.keywords().map(|(name, _)| text_of(py, name)).collect();
    let only = parameters.all.iter().filter(|parameter| parameter.kind == Kind::PositionalOnly);
    only.map(|parameter| name_of(py, parameter)).filter(|name| given.contains(name)).collect()
}

fn too_many(parameters: &Parameters, arguments: &Arguments<'_>) -> Option<String> {
    let (given, most) = (arguments.positional, parameters.positional);
    if given <= most || parameters.var_positional {
        return None;
    }
    let least = parameters.all[..most].iter().filter(|parameter| parameter.default.is_none()).count();
    let (takes, is_plural) =
        if least == most { (most.to_string(), most != 1) } else { (format!("from {least} to {most}"), true) };
    let keywords = arguments.keywords().filter(|(name, _)| {
        parameters.keyword(*name).is_some_and(|index| parameters.all[index].kind == Kind::KeywordOnly)
    });
    let given = match keywords.count() {
        0 => format!("{given} {} given", if given == 1 { "was" } else { "were" }),
        keywords => format!(
            "{given} positional argument{} (and {keywords} keyword-only argument{}) were given",
            plural(given != 1),
            plural(keywords != 1)
        ),
    };
    Some(format!("takes {takes} positional argument{} but {given}", plural(is_plural)))
}

fn missing(py: Python<'_>, parameters: &Parameters, arguments: &Arguments<'_>) -> Option<String> {
    let named: Vec<usize> = arguments.keywords().filter_map(|(name, _)| parameters.keyword(name)).collect();
    let missing_of = |kinds: &[Kind]| -> Vec<String> {
        let all = parameters.all.iter().enumerate().skip(arguments.positional.min(parameters.positional));
        all.filter(|(index, parameter)| {
            kinds.contains(&parameter.kind) && parameter.default.is_none() && !named.contains(index)
        })
        .map(|(_, parameter)| format!("'{}'", name_of(py, parameter)))
        .collect()
    };
    let positional = missing_of(&[Kind::PositionalOnly, Kind::PositionalOrKeyword]);
    let (names, kind) = if positional.is_empty() {
        (missing_of(&[Kind::KeywordOnly]), "keyword-only")
    } else {
        (positional, "positional")
    };
    let listed = match names.as_slice() {
        [] => return None,
        [one] => one.clone(),
        [one, other] => format!("{one} and {other}"),
        [first @ .., last] => format!("{}, and {last}", first.join(", ")),
    };
    Some(format!("missing {} required {kind} argument{}: {listed}", names.len(), plural(names.len() != 1)))
}

fn plural(is_plural: bool) -> &'static str {
    if is_plural { "s" } else { "" }
}

fn name_of(py: Python<'_>, parameter: &Parameter) -> String {
    parameter.name.bind(py).to_string_lossy().into_owned()
}

#[allow(unsafe_code)]
fn text_of(py: Python<'_>, name: *mut pyo3::ffi::PyObject) -> String {
    // SAFETY: attached; the name of a keyword, a `str` that the caller keeps.
    let name = unsafe { Bound::from_borrowed_ptr(py, name).cast_into_unchecked::<PyString>() };
    name.to_string_lossy().into_owned()
}
