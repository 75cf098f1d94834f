//! The plan of the house: a folder of `src/` is a layer, imports go down, and no circle is closed.
//!
//! The order of the layers is the map in the documentation of `src/lib.rs`: its table is read here, and
//! stands nowhere else.

#![allow(clippy::unwrap_used)] // Clippy knows tests, but not their helpers.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{ItemMod, ItemUse, UseTree};

/// A module by its path in the crate; the crate itself is empty.
type Module = Vec<String>;

/// Every file of `src/` but those of the crate's root, by its module.
fn files() -> BTreeMap<Module, PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeMap::new();
    let mut folders = vec![source.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let place = path.strip_prefix(&source).unwrap().with_extension("");
            let names = place.iter().map(|it| it.to_str().unwrap().to_owned());
            let module: Module = names.collect();
            if !["lib", "main"].contains(&module[0].as_str()) {
                found.insert(module, path);
            }
        }
    }
    found
}

/// The layers, from the top: the modules that the rows of the map link to.
fn layers() -> Vec<String> {
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("//! | ["));
    let firsts = rows.map(|row| row.split(" | ").next().unwrap());
    let links = firsts.flat_map(|first| first.split("`").skip(1).step_by(2).map(str::to_owned));
    links.collect()
}

/// What one file names of the crate, tests left out.
struct Imports<'a> {
    modules: &'a BTreeMap<Module, PathBuf>,
    /// Where the paths are read that are being visited.
    here: Module,
    paths: Vec<Module>,
    /// What it declares for others under another path.
    reexports: Vec<(String, Module)>,
}

impl Imports<'_> {
    /// `path`, seen from here, from the crate's root; `None` when it is of another crate.
    fn resolve(&self, path: &[String]) -> Option<Module> {
        let first = path.first()?;
        match first.as_str() {
            "crate" => Some(path[1..].to_vec()),
            "self" => Some([&self.here, &path[1..]].concat()),
            "super" => {
                let ups = path.iter().take_while(|it| *it == "super").count();
                let above = &self.here[..self.here.len().checked_sub(ups)?];
                Some([above, &path[ups..]].concat())
            }
            _ => {
                let child = [&self.here[..], std::slice::from_ref(first)].concat();
                let is_child = self.modules.contains_key(&child);
                is_child.then(|| [&self.here, path].concat())
            }
        }
    }

    fn take(&mut self, path: &[String]) {
        if let Some(path) = self.resolve(path) {
            self.paths.push(path);
        }
    }

    fn take_tree(&mut self, tree: &UseTree, prefix: &mut Vec<String>, is_reexport: bool) {
        match tree {
            UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.take_tree(&path.tree, prefix, is_reexport);
                prefix.pop();
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.take_tree(tree, prefix, is_reexport);
                }
            }
            UseTree::Glob(_) => self.take(&prefix.clone()),
            UseTree::Name(_) | UseTree::Rename(_) => {
                let (name, shown) = match tree {
                    UseTree::Rename(it) => (it.ident.to_string(), it.rename.to_string()),
                    UseTree::Name(it) => (it.ident.to_string(), it.ident.to_string()),
                    _ => unreachable!(),
                };
                let mut path = prefix.clone();
                if name != "self" {
                    path.push(name);
                }
                match self.resolve(&path) {
                    Some(full) if is_reexport => self.reexports.push((shown, full)),
                    _ => self.take(&path),
                }
            }
        }
    }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    let mut conditions = attributes.iter().filter(|it| it.path().is_ident("cfg"));
    conditions.any(|it| {
        it.parse_args::<syn::Ident>()
            .is_ok_and(|name| name == "test")
    })
}

impl<'ast> Visit<'ast> for Imports<'_> {
    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        // What tests need for their set-up is no import of the code.
        if is_test(&item.attrs) {
            return;
        }
        self.here.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.here.pop();
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let is_reexport = !matches!(item.vis, syn::Visibility::Inherited);
        self.take_tree(&item.tree, &mut Vec::new(), is_reexport);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path
            .segments
            .iter()
            .map(|it| it.ident.to_string())
            .collect();
        if ["crate", "super", "self"].contains(&names[0].as_str()) && names.len() > 1 {
            self.take(&names);
        }
        visit::visit_path(self, path);
    }
}

/// Which file needs which others.
fn graph() -> BTreeMap<Module, BTreeSet<Module>> {
    let modules = files();
    let mut paths = BTreeMap::new();
    let mut reexports = BTreeMap::new();
    for (module, path) in &modules {
        // A file of tests alone.
        if module.last().is_some_and(|it| it == "tests") {
            continue;
        }
        let mut imports = Imports {
            modules: &modules,
            here: module.clone(),
            paths: Vec::new(),
            reexports: Vec::new(),
        };
        let text = fs::read_to_string(path).unwrap();
        imports.visit_file(&syn::parse_file(&text).unwrap());
        for (name, full) in imports.reexports {
            reexports.insert([&module[..], &[name]].concat(), full);
        }
        paths.insert(module.clone(), imports.paths);
    }
    // An item that a module shows under its own name is its true file's.
    let true_path = |path: &Module| {
        let mut path = path.clone();
        for _ in 0..8 {
            let shown = (1..=path.len()).rev().find_map(|end| {
                let full = reexports.get(&path[..end])?;
                Some([&full[..], &path[end..]].concat())
            });
            match shown {
                Some(full) if full != path => path = full,
                _ => break,
            }
        }
        path
    };
    let file_of = |path: &Module| {
        let path = true_path(path);
        let mut begins = (1..=path.len()).rev().map(|end| path[..end].to_vec());
        begins.find(|it| modules.contains_key(it))
    };
    let edges = paths.into_iter().map(|(module, paths)| {
        let mut needed: BTreeSet<Module> = paths.iter().filter_map(file_of).collect();
        needed.remove(&module);
        (module, needed)
    });
    edges.collect()
}

#[test]
fn every_folder_and_file_at_the_top_of_src_is_a_row_of_the_map() {
    let mut mapped = layers();
    mapped.sort();
    let mut there: Vec<String> = files().into_keys().map(|it| it[0].clone()).collect();
    there.dedup();
    assert_eq!(mapped, there);
}

#[test]
fn imports_go_down() {
    let layers = layers();
    let height = |module: &Module| layers.iter().position(|it| *it == module[0]).unwrap();
    let mut up = Vec::new();
    for (module, needed) in graph() {
        for other in needed.iter().filter(|it| height(it) < height(&module)) {
            up.push(format!(
                "{} imports {}",
                module.join("::"),
                other.join("::")
            ));
        }
    }
    assert!(up.is_empty(), "from below to above:\n{}", up.join("\n"));
}

#[test]
fn no_file_needs_itself_by_way_of_others() {
    let graph = graph();
    let reached = |from: &Module| {
        let (mut seen, mut left) = (BTreeSet::new(), vec![from]);
        while let Some(module) = left.pop() {
            for needed in &graph[module] {
                if seen.insert(needed) {
                    left.push(needed);
                }
            }
        }
        seen
    };
    let in_circles: BTreeSet<&Module> =
        graph.keys().filter(|it| reached(it).contains(it)).collect();
    let lines = in_circles.iter().map(|module| {
        let needs = graph[*module].iter();
        let needs = needs.filter(|it| in_circles.contains(it) && reached(it).contains(module));
        let needs: Vec<String> = needs.map(|it| it.join("::")).collect();
        format!("{} -> {}", module.join("::"), needs.join(", "))
    });
    let lines: Vec<String> = lines.collect();
    assert!(lines.is_empty(), "in circles:\n{}", lines.join("\n"));
}
