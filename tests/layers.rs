//! The plan of the house: a folder of `src/` is a layer, imports go down, and no circle is closed.
//!
//! The order of the layers is the map in the documentation of `src/lib.rs`: its table is read here, and
//! stands nowhere else. So is that of `src/proxy.rs`, of the modules in there.
//!
//! Also: no two types have one name, and `pub` is only what somebody outside `src/` needs.

#![allow(clippy::unwrap_used)] // Clippy knows tests, but not their helpers.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use syn::buffer::{Cursor, TokenBuffer};
use syn::visit::{self, Visit};
use syn::{ImplItemFn, Item, ItemMod, ItemUse, UseTree, Visibility};

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

/// The text of a file of `src/`.
fn source(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    fs::read_to_string(folder.join(name)).unwrap()
}

/// The modules that the rows of a map name, from the top.
fn mapped(text: &str) -> Vec<String> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("//! | "));
    let firsts = rows.map(|row| row.split(" | ").next().unwrap());
    let names = firsts.flat_map(|first| first.split('`').skip(1).step_by(2).map(str::to_owned));
    names.collect()
}

/// The layers, from the top.
fn layers() -> Vec<String> {
    mapped(&source("lib.rs"))
}

/// What one file names of the crate, tests left out.
struct Imports<'a> {
    modules: &'a BTreeMap<Module, PathBuf>,
    /// Where the paths are read that are being visited.
    here: Module,
    paths: Vec<Module>,
    /// What it declares for others under another path.
    reexports: Vec<(String, Module)>,
    /// The first names of all paths: a re-export may be used where it is made, too.
    names: BTreeSet<String>,
    /// The modules that have files of their own.
    declared: Vec<Module>,
    /// Those of them that only tests have.
    tests: Vec<Module>,
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

    /// Takes a path that is used where it stands.
    fn take_inline(&mut self, path: &[String]) {
        self.names.extend(path.first().cloned());
        if path.len() > 1 {
            self.take(path);
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

/// The paths among the tokens of a macro, which need not be Rust.
fn paths_among(tokens: Cursor<'_>, paths: &mut Vec<Vec<String>>) {
    let (mut at, mut colons) = (tokens, 0);
    while let Some((_, next)) = at.token_tree() {
        if let Some((name, _)) = at.ident() {
            match paths.last_mut() {
                Some(path) if colons == 2 => path.push(name.to_string()),
                _ => paths.push(vec![name.to_string()]),
            }
            colons = 0;
        } else if at.punct().is_some_and(|(it, _)| it.as_char() == ':') {
            colons += 1;
        } else {
            colons = 0;
            if let Some((inside, ..)) = at.any_group() {
                paths_among(inside, paths);
            }
        }
        at = next;
    }
}

impl<'ast> Visit<'ast> for Imports<'_> {
    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        let is_elsewhere = item.attrs.iter().any(|it| it.path().is_ident("path"));
        assert!(!is_elsewhere, "the file of {} has another name", item.ident);
        self.here.push(item.ident.to_string());
        if item.content.is_none() {
            self.declared.push(self.here.clone());
        }
        // What tests need for their set-up is no import of the code.
        match is_test(&item.attrs) {
            true => self.tests.push(self.here.clone()),
            false => visit::visit_item_mod(self, item),
        }
        self.here.pop();
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let is_reexport = !matches!(item.vis, syn::Visibility::Inherited);
        self.take_tree(&item.tree, &mut Vec::new(), is_reexport);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names = path.segments.iter().map(|it| it.ident.to_string());
        self.take_inline(&names.collect::<Vec<_>>());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        let tokens = TokenBuffer::new2(item.tokens.clone());
        let mut paths = Vec::new();
        paths_among(tokens.begin(), &mut paths);
        for path in paths {
            self.take_inline(&path);
        }
        // A macro's own name is none of an item.
        let name = item.path.segments.iter().map(|it| it.ident.to_string());
        self.take(&name.collect::<Vec<_>>());
    }

    /// Who may see an item needs nothing of it.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}
}

/// What each file names; the crate's root is the file of the empty path.
fn imports(modules: &BTreeMap<Module, PathBuf>) -> BTreeMap<Module, Imports<'_>> {
    let texts = modules
        .iter()
        .map(|(module, path)| (module.clone(), fs::read_to_string(path).unwrap()));
    let all = texts
        .chain([(Module::new(), source("lib.rs"))])
        .map(|(here, text)| {
            let mut imports = Imports {
                modules,
                here: here.clone(),
                paths: Vec::new(),
                reexports: Vec::new(),
                names: BTreeSet::new(),
                declared: Vec::new(),
                tests: Vec::new(),
            };
            imports.visit_file(&syn::parse_file(&text).unwrap());
            (here, imports)
        });
    all.collect()
}

/// Which file needs which others.
static GRAPH: LazyLock<BTreeMap<Module, BTreeSet<Module>>> = LazyLock::new(|| {
    let modules = files();
    let mut all = imports(&modules);
    all.remove(&Module::new());
    let tests: Vec<Module> = all.values().flat_map(|it| it.tests.clone()).collect();
    all.retain(|module, _| !tests.iter().any(|it| module.starts_with(it)));
    let mut reexports = BTreeMap::new();
    for (module, imports) in &mut all {
        for (name, full) in std::mem::take(&mut imports.reexports) {
            // What a module shows of its own parts is theirs; all else it needs to show it.
            if !full.starts_with(module) || imports.names.contains(&name) {
                imports.paths.push(full.clone());
            }
            reexports.insert([&module[..], &[name]].concat(), full);
        }
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
    let edges = all.iter().map(|(module, imports)| {
        let mut needed: BTreeSet<Module> = imports.paths.iter().filter_map(file_of).collect();
        needed.remove(module);
        (module.clone(), needed)
    });
    edges.collect()
});

#[test]
fn every_folder_and_file_at_the_top_of_src_is_a_row_of_the_map() {
    let mut layers = layers();
    layers.sort();
    let mut there: Vec<String> = files().into_keys().map(|it| it[0].clone()).collect();
    there.dedup();
    assert_eq!(layers, there);
}

#[test]
fn every_file_is_a_module_where_it_lies_and_the_root_has_nothing_but_modules() {
    let modules = files();
    let mut declared: Vec<Module> = imports(&modules)
        .into_values()
        .flat_map(|it| it.declared)
        .collect();
    declared.sort();
    assert_eq!(declared, modules.keys().cloned().collect::<Vec<_>>());
    // What the root showed under another path would belong to no layer.
    let items = syn::parse_file(&source("lib.rs")).unwrap().items;
    assert!(items.iter().all(|it| matches!(it, Item::Mod(_))));
}

#[test]
fn imports_go_down() {
    let proxy = mapped(&source("proxy.rs"));
    // A folder, and the map of what is in it.
    for (folder, map) in [(vec![], layers()), (vec!["proxy".to_owned()], proxy)] {
        let height = |module: &Module| {
            let inner = module.strip_prefix(&folder[..])?.first()?;
            let place = map.iter().position(|it| it == inner);
            Some(place.unwrap_or_else(|| panic!("{inner} is on no map")))
        };
        let mut up = Vec::new();
        for (module, needed) in &*GRAPH {
            let goes_up = |other: &&Module| height(other) < height(module);
            let in_folder = |it: &&Module| height(it).is_some() && height(module).is_some();
            for other in needed.iter().filter(in_folder).filter(goes_up) {
                up.push(format!(
                    "{} imports {}",
                    module.join("::"),
                    other.join("::")
                ));
            }
        }
        assert!(up.is_empty(), "from below to above:\n{}", up.join("\n"));
    }
}

#[test]
fn no_file_needs_itself_by_way_of_others() {
    let graph = &*GRAPH;
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

/// What a file defines, and what of it others can see; tests aside.
#[derive(Default)]
struct Items {
    types: Vec<String>,
    /// The names of public items and methods.
    public: Vec<String>,
    /// Every name in the signatures and public fields of these.
    shown: BTreeSet<String>,
    /// The item that is being visited implements a trait.
    is_of_trait: bool,
}

impl Items {
    /// Takes an item's name; true when it is public.
    fn take(&mut self, visibility: &Visibility, name: &syn::Ident) -> bool {
        let is_public = matches!(visibility, Visibility::Public(_));
        if is_public {
            self.public.push(name.to_string());
        }
        is_public
    }
}

impl<'ast> Visit<'ast> for Items {
    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if !is_test(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.types.push(item.ident.to_string());
        if self.take(&item.vis, &item.ident) {
            visit::visit_item_struct(self, item);
        }
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        if matches!(field.vis, Visibility::Public(_)) {
            visit::visit_field(self, field);
        }
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.types.push(item.ident.to_string());
        if self.take(&item.vis, &item.ident) {
            for field in item.variants.iter().flat_map(|it| &it.fields) {
                self.visit_type(&field.ty);
            }
        }
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.types.push(item.ident.to_string());
        if self.take(&item.vis, &item.ident) {
            visit::visit_item_trait(self, item);
        }
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        self.types.push(item.ident.to_string());
        self.take(&item.vis, &item.ident);
        // What a name stands for is seen wherever the name is.
        visit::visit_item_type(self, item);
    }

    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        if self.take(&item.vis, &item.ident) {
            self.visit_type(&item.ty);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if self.take(&item.vis, &item.sig.ident) {
            self.visit_signature(&item.sig);
        }
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        self.is_of_trait = item.trait_.is_some();
        for item in &item.items {
            self.visit_impl_item(item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        if self.is_of_trait || self.take(&item.vis, &item.sig.ident) {
            self.visit_signature(&item.sig);
        }
    }

    fn visit_impl_item_const(&mut self, item: &'ast syn::ImplItemConst) {
        if !self.is_of_trait && self.take(&item.vis, &item.ident) {
            self.visit_type(&item.ty);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names = path.segments.iter().map(|it| it.ident.to_string());
        self.shown.extend(names);
        visit::visit_path(self, path);
    }

    /// A macro may define types.
    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        let tokens = TokenBuffer::new2(item.tokens.clone());
        let mut paths = Vec::new();
        paths_among(tokens.begin(), &mut paths);
        let names: Vec<String> = paths.concat();
        for pair in names.windows(2) {
            let is_type = ["struct", "enum", "trait"].contains(&&*pair[0]);
            if is_type && pair[1].starts_with(char::is_uppercase) {
                self.types.push(pair[1].clone());
            }
        }
        self.shown.extend(names);
    }

    fn visit_item_use(&mut self, _: &'ast ItemUse) {}

    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}
}

/// What every file defines, by its module; tests aside.
static ITEMS: LazyLock<BTreeMap<Module, Items>> = LazyLock::new(|| {
    let mut modules = files();
    modules.retain(|module, _| !module.iter().any(|it| it == "tests"));
    let all = modules.into_iter().map(|(module, path)| {
        let mut items = Items::default();
        items.visit_file(&syn::parse_file(&fs::read_to_string(path).unwrap()).unwrap());
        (module, items)
    });
    all.collect()
});

#[test]
fn no_two_types_have_one_name() {
    let mut owners = BTreeMap::<&str, Vec<String>>::new();
    for (module, items) in &*ITEMS {
        for name in &items.types {
            owners.entry(name).or_default().push(module.join("::"));
        }
    }
    owners.retain(|_, owners| owners.len() > 1);
    assert!(owners.is_empty(), "{owners:#?}");
}

#[test]
fn what_is_public_is_named_outside_or_shown_by_what_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut outside = vec![root.join("src/main.rs")];
    let mut folders: Vec<PathBuf> = ["tests", "benches", "examples", "fuzz/src"]
        .map(|it| root.join(it))
        .to_vec();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => outside.push(path),
            }
        }
    }
    outside.retain(|it| it.extension().is_some_and(|it| it == "rs"));
    let texts: Vec<String> = outside
        .iter()
        .map(|it| fs::read_to_string(it).unwrap())
        .collect();
    let is_no_word = |it: char| !it.is_alphanumeric() && it != '_';
    let mut needed: BTreeSet<&str> = texts.iter().flat_map(|it| it.split(is_no_word)).collect();
    needed.extend(ITEMS.values().flat_map(|it| &it.shown).map(String::as_str));
    let too_wide = ITEMS.iter().flat_map(|(module, items)| {
        let names = items.public.iter().filter(|it| !needed.contains(&***it));
        names.map(move |it| format!("{}::{it}", module.join("::")))
    });
    let too_wide: Vec<String> = too_wide.collect();
    assert!(too_wide.is_empty(), "could be pub(crate): {too_wide:#?}");
}
