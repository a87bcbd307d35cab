//! Names of functions, from the source of their library.

/// The most functions of a library that are named.
pub const FUNCTIONS_SHOWN_MAX: usize = 1024;
/// How far behind the call the name may stand, where it is given as a named argument.
const ARGUMENTS_LEN_MAX: usize = 1024;
/// What a library calls for each function (`redis.register_function`, from Valkey 8 also `server.register_function`).
const CALL: &[u8] = b"register_function";
/// The argument that names it, where arguments have names.
const NAME: &[u8] = b"function_name";

/// The names that stand as text in calls of `register_function`, in order, each once. One that a library computes
/// while it is loaded is known to the server alone.
pub(super) fn functions_of(source: &[u8]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let mut rest = source;
    while let Some((before, after)) = split_at(rest, CALL) {
        rest = after;
        let line = before.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
        let is_comment = line.windows(2).any(|two| two == b"--");
        if let Some(name) = name(after).filter(|name| !is_comment && !names.contains(name)) {
            names.push(name);
        }
        if names.len() >= FUNCTIONS_SHOWN_MAX {
            break;
        }
    }
    names
}

/// What stands before and behind the first `word`.
fn split_at<'a>(text: &'a [u8], word: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = text.windows(word.len()).position(|window| window == word)?;
    Some((text.get(..at)?, text.get(at + word.len()..)?))
}

/// The name in the arguments of a call: the first, or the one that is called so.
fn name(arguments: &[u8]) -> Option<String> {
    let open = arguments.trim_ascii_start();
    let first = open.strip_prefix(b"(").unwrap_or(open).trim_ascii_start();
    let Some(named) = first.strip_prefix(b"{") else { return quoted(first) };
    let named = named.get(..ARGUMENTS_LEN_MAX).unwrap_or(named);
    let (_, value) = split_at(named, NAME)?;
    quoted(value.trim_ascii_start().strip_prefix(b"=")?.trim_ascii_start())
}

/// A text in quotes, of what servers allow in names of functions.
fn quoted(text: &[u8]) -> Option<String> {
    let (quote @ (b'\'' | b'"'), rest) = text.split_first()? else { return None };
    let name = rest.split(|byte| byte == quote).next().filter(|name| name.len() < rest.len())?;
    let is_name = !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    is_name.then(|| String::from_utf8_lossy(name).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_from_every_form_of_the_call() {
        let source = b"#!lua name=mylib\n\
            redis.register_function('plain', function(keys, args) return 1 end)\n\
            server.register_function(\"quoted\", f)\n\
            redis.register_function{function_name='named', callback=f, flags={ 'no-writes' }}\n\
            redis.register_function( { callback = f,\n  function_name = \"spaced\" } )\n\
            -- redis.register_function('comment', f)\n\
            redis.register_function('plain', f)\n\
            redis.register_function(prefix .. 'computed', f)\n\
            redis.register_function('no name', f) redis.register_function('open";
        assert_eq!(functions_of(source), ["plain", "quoted", "named", "spaced"]);
        assert!(functions_of(b"").is_empty());
    }
}
