//! Which file of a crate uses which, as far as its own text says: `use` declarations, and paths from `crate`, `super` and `self`.

use std::collections::{BTreeMap, BTreeSet};

/// A module by its path from the root of the crate, which is empty.
type Module = Vec<String>;

/// Files of a crate, and what they say of each other.
pub struct Imports {
    files: BTreeMap<Module, String>,
    /// What a module hands on under a name of its own, and where that is.
    handed_on: BTreeMap<(Module, String), Vec<String>>,
    users: BTreeMap<Module, BTreeSet<Module>>,
}

impl Imports {
    /// Of these sources below `root`, each with its code. What only tests have is left out.
    pub fn of(root: &str, sources: &[(String, String)]) -> Imports {
        let mut imports = Imports { files: BTreeMap::new(), handed_on: BTreeMap::new(), users: BTreeMap::new() };
        let mut codes = Vec::new();
        for (source, code) in sources {
            let file = source.strip_prefix(root).expect("a source below the root").trim_start_matches('/');
            let Some(name) = file.strip_suffix(".rs") else { continue };
            if name.ends_with("tests") || name.contains("/tests/") || name == "main" {
                continue;
            }
            let mut module: Module = name.split('/').map(str::to_owned).collect();
            if module.last().is_some_and(|last| last == "mod" || last == "lib") {
                module.pop();
            }
            let code = code.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
            imports.files.insert(module.clone(), source.clone());
            codes.push((module, code));
        }
        for (module, code) in &codes {
            for (is_public, path) in declarations(code) {
                let Some(name) = path.last().cloned() else { continue };
                if let (true, Some(path)) = (is_public, imports.absolute(module, &path)) {
                    imports.handed_on.insert((module.clone(), name), path);
                }
            }
        }
        for (module, code) in &codes {
            let declared = declarations(code).into_iter().filter(|(is_public, path)| {
                // What a module hands on of its own parts is used by whoever takes it.
                !is_public || path.first().is_some_and(|first| first == "crate" || first == "super")
            });
            for path in declared.map(|(_, path)| path).chain(paths(code)) {
                if let Some(used) = imports.absolute(module, &path).and_then(|path| imports.file_of(path)) {
                    // A part may use what it is a part of.
                    let is_part = module.starts_with(&used);
                    if used != *module && !used.is_empty() && !is_part {
                        imports.users.entry(module.clone()).or_default().insert(used);
                    }
                }
            }
        }
        imports
    }

    /// How many uses there are.
    pub fn count(&self) -> usize {
        self.users.values().map(BTreeSet::len).sum()
    }

    /// Files that use each other in a circle, in the order of the circle, if there are any.
    pub fn circle(&self) -> Option<Vec<&str>> {
        let mut done = BTreeSet::new();
        self.users.keys().find_map(|module| self.circle_from(module, &mut Vec::new(), &mut done))
    }

    fn circle_from<'a>(
        &'a self,
        module: &'a Module,
        way: &mut Vec<&'a Module>,
        done: &mut BTreeSet<&'a Module>,
    ) -> Option<Vec<&'a str>> {
        if let Some(begin) = way.iter().position(|before| *before == module) {
            return Some(way[begin..].iter().map(|module| self.files[*module].as_str()).collect());
        }
        if done.contains(module) {
            return None;
        }
        way.push(module);
        let found = self.users.get(module).into_iter().flatten().find_map(|used| self.circle_from(used, way, done));
        way.pop();
        done.insert(module);
        found
    }

    /// A path from the root of the crate; `None` for what belongs to another crate.
    fn absolute(&self, module: &Module, path: &[String]) -> Option<Vec<String>> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => Some(rest.to_vec()),
            "self" => Some([module, rest].concat()),
            "super" => {
                let supers = path.iter().take_while(|part| *part == "super").count();
                let base = module.len().checked_sub(supers)?;
                Some([&module[..base], &path[supers..]].concat())
            }
            _ => {
                let inside = [module, path].concat();
                self.files.contains_key(&inside[..=module.len()]).then_some(inside)
            }
        }
    }

    /// The module that has what the path names, also where others hand it on.
    fn file_of(&self, mut path: Vec<String>) -> Option<Module> {
        for _ in 0..8 {
            let length = (0..=path.len()).rev().find(|length| self.files.contains_key(&path[..*length]))?;
            let module = path[..length].to_vec();
            let handed_on = path.get(length).and_then(|name| self.handed_on.get(&(module.clone(), name.clone())));
            match handed_on {
                Some(place) => path = [place.as_slice(), &path[length + 1..]].concat(),
                None => return Some(module),
            }
        }
        None
    }
}

/// The paths of `use` declarations, each with whether it is public.
fn declarations(code: &str) -> Vec<(bool, Vec<String>)> {
    let mut found = Vec::new();
    let mut lines = code.lines().map(str::trim_start);
    while let Some(line) = lines.next() {
        let (is_public, declaration) = match line.strip_prefix("pub") {
            Some(rest) => (true, rest.split_once(')').map_or(rest, |(_, rest)| rest).trim_start()),
            None => (false, line),
        };
        let declaration = if is_public && line.starts_with("pub use") { &line[4..] } else { declaration };
        let Some(begin) = declaration.strip_prefix("use ") else { continue };
        let mut text = begin.to_owned();
        while !text.contains(';') {
            let Some(next) = lines.next() else { break };
            text.push_str(next);
        }
        let mut paths = Vec::new();
        take_apart(&[], text.split(';').next().unwrap_or_default(), &mut paths);
        found.extend(paths.into_iter().map(|path| (is_public, path)));
    }
    found
}

/// Takes a tree of a `use` declaration apart.
fn take_apart(before: &[String], tree: &str, found: &mut Vec<Vec<String>>) {
    let mut depth = 0;
    let at_top = |character: char| {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        character == ',' && depth == 0
    };
    for branch in tree.split(at_top).map(str::trim).filter(|branch| !branch.is_empty()) {
        let (path, inside) = match branch.split_once('{') {
            Some((path, inside)) => (path, inside.strip_suffix('}')),
            None => (branch.split(" as ").next().unwrap_or_default(), None),
        };
        let parts = path.split("::").map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned);
        let path: Vec<String> = before.iter().cloned().chain(parts).collect();
        match inside {
            Some(inside) => take_apart(&path, inside, found),
            None => found.push(path),
        }
    }
}

/// The paths in code that begin with `crate`, `super` or `self`.
fn paths(code: &str) -> Vec<Vec<String>> {
    let is_path = |character: char| character.is_alphanumeric() || character == '_' || character == ':';
    let texts = code.split(|character| !is_path(character));
    let begins = |text: &&str| {
        // What ends so is the beginning of a declaration's tree.
        !text.ends_with("::") && ["crate::", "super::", "self::"].iter().any(|begin| text.starts_with(begin))
    };
    let parts = |text: &str| text.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect();
    texts.filter(begins).map(parts).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circle_of(sources: &[(&str, &str)]) -> Option<Vec<String>> {
        let sources: Vec<(String, String)> =
            sources.iter().map(|(file, code)| (format!("src/{file}"), (*code).to_owned())).collect();
        Imports::of("src", &sources).circle().map(|circle| circle.into_iter().map(str::to_owned).collect())
    }

    #[test]
    fn circles_are_found_however_they_are_written() {
        let ring = Some(vec!["src/a/b.rs".to_owned(), "src/c.rs".to_owned()]);
        for (b, c) in [
            ("use crate::c::C;", "use crate::a::b::B;"),
            ("use crate::{\n    c::{C, D},\n    e,\n};", "fn f() { crate::a::b::f() }"),
            ("fn f(c: super::super::c::C) {}", "use crate::a::B;"),
        ] {
            let found =
                circle_of(&[("lib.rs", ""), ("a/mod.rs", "mod b;\npub use self::b::B;"), ("a/b.rs", b), ("c.rs", c)]);
            assert_eq!(found, ring, "{b} {c}");
        }
    }

    #[test]
    fn a_part_may_use_what_it_is_a_part_of_and_tests_may_use_all() {
        let parts = [("a/mod.rs", "mod b;\nuse self::b::B;"), ("a/b.rs", "use super::A;")];
        assert_eq!(circle_of(&parts), None);
        let tests = [("a.rs", "use crate::c::C;"), ("c.rs", "#[cfg(test)]\nmod tests {\n    use crate::a::A;\n}")];
        assert_eq!(circle_of(&tests), None);
    }
}
