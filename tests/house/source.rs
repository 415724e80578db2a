//! What a Rust source names: every path, in `use` trees and in code, with aliases
//! resolved. It works on tokens, so comments and strings are no hits, and it skips
//! what only tests see.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{Delimiter, Ident, TokenStream, TokenTree};

/// One path that a source names, e.g. `["std", "fs", "read"]`. A glob import ends
/// with `*`; `crate`, `self` and `super` are resolved to `crate` and what follows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Named {
    pub(crate) path: Vec<String>,
    pub(crate) line: usize,
}

/// Everything that the non-test part of a source names.
#[derive(Debug, Default)]
pub(crate) struct Source {
    pub(crate) paths: Vec<Named>,
    /// Single identifiers, keywords among them (`async`, `await`, `BuildHasher`).
    pub(crate) idents: BTreeMap<String, usize>,
    /// Modules that the source declares for tests only (`#[cfg(test)] mod name;`).
    pub(crate) test_modules: BTreeSet<String>,
    /// What `use` made available under a short name. Scopes are not told apart:
    /// two meanings of one name in one file would be a finding of its own.
    pub(crate) aliases: BTreeMap<String, Vec<String>>,
}

impl Source {
    /// Reads a source whose module is `crate::` and then `module`.
    pub(crate) fn read(text: &str, module: &[&str]) -> Result<Self, String> {
        let tokens: TokenStream = text.parse().map_err(|error| format!("{error}"))?;
        let mut reader = Reader::default();
        let module = module.iter().map(ToString::to_string).collect();
        reader.walk(tokens, &module);
        let mut source = reader.source;
        for named in &mut source.paths {
            if let Some(full) = source.aliases.get(&named.path[0]) {
                named.path.splice(0..1, full.iter().cloned());
            }
        }
        source.paths.sort();
        source.paths.dedup();
        Ok(source)
    }
}

#[derive(Default)]
struct Reader {
    source: Source,
}

type Module = Vec<String>;

impl Reader {
    fn walk(&mut self, tokens: TokenStream, module: &Module) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            at = self.step(&tokens, at, module);
            if at == usize::MAX {
                return; // `#![cfg(test)]`: the rest is for tests only.
            }
        }
    }

    /// Reads what starts at `at` and says where the next thing starts.
    fn step(&mut self, tokens: &[TokenTree], at: usize, module: &Module) -> usize {
        match &tokens[at] {
            TokenTree::Punct(punct) if punct.as_char() == '#' => {
                let inner = is_punct(tokens.get(at + 1), '!');
                let body = at + 1 + usize::from(inner);
                let test_only = is_cfg_test(tokens.get(body));
                match (test_only, inner) {
                    (true, true) => usize::MAX,
                    (true, false) => self.skip_item(tokens, body + 1),
                    (false, _) => at + 1,
                }
            }
            TokenTree::Group(group) => {
                self.walk(group.stream(), module);
                at + 1
            }
            // `impl Trait + use<'a>` imports nothing.
            TokenTree::Ident(ident) if ident == "use" && !is_punct(tokens.get(at + 1), '<') => {
                self.read_use(tokens, at + 1, module)
            }
            TokenTree::Ident(ident) if ident == "mod" => {
                let Some(TokenTree::Ident(name)) = tokens.get(at + 1) else {
                    return at + 1;
                };
                if let Some(TokenTree::Group(body)) = tokens.get(at + 2) {
                    let mut inner = module.clone();
                    inner.push(name.to_string());
                    self.walk(body.stream(), &inner);
                    return at + 3;
                }
                at + 2
            }
            TokenTree::Ident(ident) => self.read_path(tokens, at, ident, module),
            _ => at + 1,
        }
    }

    fn read_path(
        &mut self,
        tokens: &[TokenTree],
        at: usize,
        first: &Ident,
        module: &Module,
    ) -> usize {
        let line = first.span().start().line;
        let mut path = vec![first.to_string()];
        let mut at = at + 1;
        while let Some(TokenTree::Ident(next)) = tokens.get(at + 2) {
            if !is_path_separator(tokens, at) {
                break;
            }
            path.push(next.to_string());
            at += 3;
        }
        for ident in &path {
            self.source.idents.entry(ident.clone()).or_insert(line);
        }
        if path.len() > 1 {
            self.name(resolve(path, module), line);
        }
        at
    }

    fn read_use(&mut self, tokens: &[TokenTree], at: usize, module: &Module) -> usize {
        let end = tokens[at..]
            .iter()
            .position(|token| is_punct(Some(token), ';'))
            .map_or(tokens.len(), |length| at + length);
        self.read_use_tree(&tokens[at..end], &Vec::new(), module);
        end
    }

    fn read_use_tree(&mut self, tree: &[TokenTree], prefix: &Module, module: &Module) {
        for branch in tree.split(|token| is_punct(Some(token), ',')) {
            let mut path = prefix.clone();
            let mut alias = None;
            let mut line = 0;
            let mut grouped = false;
            let mut tokens = branch.iter();
            while let Some(token) = tokens.next() {
                match token {
                    TokenTree::Ident(ident) if ident == "as" => {
                        alias = tokens.next().map(ToString::to_string);
                    }
                    TokenTree::Ident(ident) => {
                        line = ident.span().start().line;
                        let ident = ident.to_string();
                        self.source.idents.entry(ident.clone()).or_insert(line);
                        // `a::{self}` names `a`.
                        if ident != "self" || path.is_empty() {
                            path.push(ident);
                        }
                    }
                    TokenTree::Punct(punct) if punct.as_char() == '*' => {
                        line = punct.span().start().line;
                        path.push("*".to_owned());
                    }
                    TokenTree::Group(group) => {
                        grouped = true;
                        let inner: Vec<_> = group.stream().into_iter().collect();
                        self.read_use_tree(&inner, &path, module);
                    }
                    _ => {}
                }
            }
            if !grouped && !path.is_empty() {
                let path = resolve(path, module);
                let short = alias.or_else(|| path.last().cloned()).unwrap_or_default();
                if path.len() > 1 || short != path[0] {
                    self.source.aliases.insert(short, path.clone());
                }
                self.name(path, line);
            }
        }
    }

    fn name(&mut self, path: Module, line: usize) {
        self.source.paths.push(Named { path, line });
    }

    /// Skips an item that only tests see, with its further attributes.
    fn skip_item(&mut self, tokens: &[TokenTree], mut at: usize) -> usize {
        while is_punct(tokens.get(at), '#') {
            at += 2;
        }
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Ident(ident) if ident == "mod" => {
                    if let (Some(TokenTree::Ident(name)), true) =
                        (tokens.get(at + 1), is_punct(tokens.get(at + 2), ';'))
                    {
                        self.source.test_modules.insert(name.to_string());
                    }
                    at += 1;
                }
                TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => return at + 1,
                TokenTree::Punct(punct) if punct.as_char() == ';' => return at + 1,
                _ => at += 1,
            }
        }
        at
    }
}

/// Turns `self::…` and `super::…` into `crate::…`.
fn resolve(path: Module, module: &Module) -> Module {
    let mut here = module.clone();
    let mut rest = path.as_slice();
    let mut relative = false;
    while let Some((first, tail)) = rest.split_first() {
        match first.as_str() {
            "self" if !relative => {}
            "super" => drop(here.pop()),
            _ => break,
        }
        relative = true;
        rest = tail;
    }
    if !relative {
        return path;
    }
    let mut full = vec!["crate".to_owned()];
    full.extend(here);
    full.extend(rest.iter().cloned());
    full
}

fn is_punct(token: Option<&TokenTree>, char: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == char)
}

fn is_path_separator(tokens: &[TokenTree], at: usize) -> bool {
    is_punct(tokens.get(at), ':') && is_punct(tokens.get(at + 1), ':')
}

/// `[cfg(test)]` or `[cfg(all(test, …))]`. `any(test, …)` is code that also runs elsewhere.
fn is_cfg_test(token: Option<&TokenTree>) -> bool {
    let Some(TokenTree::Group(group)) = token else {
        return false;
    };
    let text: String = group
        .stream()
        .to_string()
        .split_whitespace()
        .collect::<Vec<_>>()
        .concat();
    text == "cfg(test)" || text.starts_with("cfg(all(test,")
}

#[test]
fn every_way_to_name_a_path_is_read() {
    let text = r#"
        use std::{fs::{self, File}, io as input, time::*};
        use super::sibling;
        fn f() {
            let _ = tokio::select! { _ = ::rand::random::<u8>() => {} };
            let _ = input::stdin();
            let _ = assert!(sibling::is(std::env::var("x")));
        }
        mod inner { use super::below; use super::super::outside; }
    "#;
    let source = Source::read(text, &["room", "file"]).expect("the text is Rust");
    let paths: BTreeSet<String> = source.paths.iter().map(|it| it.path.join("::")).collect();
    for expected in [
        "std::fs",
        "std::fs::File",
        "std::io",
        "std::time::*",
        "crate::room::sibling",
        "tokio::select",
        "rand::random",
        "std::io::stdin",
        "crate::room::sibling::is",
        "std::env::var",
        "crate::room::file::below",
        "crate::room::outside",
    ] {
        assert!(paths.contains(expected), "{expected} not in {paths:#?}");
    }
}

#[test]
fn comments_strings_and_test_code_name_nothing() {
    let text = r#"
        //! Not std::fs::read here.
        /* nor std::net::TcpStream */
        const TEXT: &str = "std::thread::spawn";
        #[cfg(test)] use std::fs::File;
        #[cfg(test)]
        #[allow(unused)]
        mod tests { use std::fs; fn f() { std::thread::sleep(D) } }
        #[cfg(test)] mod cases;
        fn after() { std::process::exit(1) }
    "#;
    let source = Source::read(text, &[]).expect("the text is Rust");
    let paths: Vec<String> = source.paths.iter().map(|it| it.path.join("::")).collect();
    assert_eq!(paths, ["std::process::exit"]);
    assert!(source.test_modules.contains("cases"));
}

#[test]
fn code_that_a_feature_can_switch_on_is_not_test_code() {
    let text = r#"#[cfg(any(test, feature = "testing"))] mod faulty { use std::fs; }"#;
    let source = Source::read(text, &[]).expect("the text is Rust");
    assert_eq!(source.paths.len(), 1);
}
