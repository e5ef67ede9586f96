//! Bindings: what a service needs, and whether it can make use of it.

use super::Checker;
use super::service::taken;
use crate::mistake::{list, nearest, short};
use crate::model::{Binding, BindingTarget};
use crate::parse::MISTAKES_MAX;
use crate::raw::{At, RawBinding, RawRun};
use crate::text::{variable, wrong};
use kernel::{Name, ScopedName};
use std::collections::{BTreeMap, BTreeSet};

/// Who is being checked.
pub(super) struct Owner {
    /// `service/NAME`.
    pub name: String,
    pub run: Option<Kind>,
}

#[derive(Clone, Copy)]
pub(super) enum Kind {
    Process,
    Wasm,
    Actor,
}

impl Kind {
    pub fn of(run: &RawRun) -> Self {
        if run.wasm.is_some() {
            Self::Wasm
        } else if run.actor.is_some() {
            Self::Actor
        } else {
            Self::Process
        }
    }
}

impl Checker<'_> {
    pub(super) fn binding(
        &mut self,
        owner: &Owner,
        set: &(&BTreeMap<String, String>, &BTreeMap<String, Name>),
        key: &At<String>,
        raw: RawBinding,
    ) -> Binding {
        let RawBinding {
            to,
            environment: sets,
        } = raw;
        if to.is_none() {
            let help = "write `to = \"site/NAME\"`, `\"service/NAME\"` or `\"bucket/NAME\"`";
            self.missing(key, "to", help);
        }
        let target = to.as_ref().and_then(|to| self.target(&owner.name, to));
        if let (Some(target), Some(to)) = (&target, &to) {
            self.fits(owner, target, to);
        }
        match (&target, &sets) {
            (Some(BindingTarget::Bucket(_)), Some(sets)) => {
                let told = "a bucket sets no variable";
                let help = "leave `environment` out: it is opened by the binding's name";
                self.report(&sets.span, wrong("conflict", told, help));
            }
            (None | Some(BindingTarget::Site(_)), None) => {
                self.missing(key, "environment", "write `environment = \"VARIABLE\"`");
            }
            (Some(_), None) | (_, Some(_)) => {}
        }
        let variable = self.text(sets.as_ref(), |text| {
            if set.0.contains_key(text) {
                return Err(taken(text));
            }
            if set.1.contains_key(text) {
                let message = format!("`{}` is already set in `secrets`", short(text));
                return Err(wrong("environment", message, "choose another name"));
            }
            variable(text)
        });
        // Only seen when there was a mistake, and then nobody sees the model.
        let nothing = || BindingTarget::Site(Name::new("none").expect("a name"));
        Binding {
            target: target.unwrap_or_else(nothing),
            environment: variable,
        }
    }

    /// Whether that kind of service can make use of the target.
    fn fits(&mut self, owner: &Owner, target: &BindingTarget, to: &At<String>) {
        let (message, help) = match (owner.run, target) {
            (Some(Kind::Process), BindingTarget::Bucket(_)) => (
                "a process cannot be bound to a bucket",
                "run it as `wasm` or `actor`",
            ),
            (Some(Kind::Wasm | Kind::Actor), BindingTarget::Site(_)) => (
                "wasm has no files to find a site in",
                "run it as a `process`, or ask for the documents at the edge",
            ),
            (Some(Kind::Actor), BindingTarget::Service(_) | BindingTarget::Foreign(_)) => (
                "an actor makes no requests of its own",
                "run it as `wasm` or `process`",
            ),
            _ => return,
        };
        self.report(&to.span, wrong("conflict", message, help));
    }

    pub(super) fn check_binding_variables(
        &mut self,
        bindings: &BTreeMap<Name, Binding>,
        key: &At<String>,
    ) {
        let mut seen = BTreeSet::new();
        for variable in bindings
            .values()
            .filter_map(|binding| binding.environment.as_ref())
        {
            if !seen.insert(variable) {
                let message = format!("two bindings of `{}` set `{variable}`", key.value);
                self.report(
                    &key.span,
                    wrong("environment", message, "choose another name"),
                );
            }
        }
    }

    fn target(&mut self, owner: &str, to: &At<String>) -> Option<BindingTarget> {
        let text = &to.value;
        if text == owner {
            let help = "bind to another object";
            self.report(
                &to.span,
                wrong("unknown-target", "the service is bound to itself", help),
            );
            return None;
        }
        if let Some(("service", rest)) = text.split_once('/')
            && let Some((project, name)) = rest.split_once('/')
            && let (Ok(project), Ok(name)) = (Name::new(project), Name::new(name))
            && self.project.as_ref() != Some(&project)
        {
            // Whether it is there, and allows it, is known only where both run.
            return Some(BindingTarget::Foreign(ScopedName::new(project, name)));
        }
        let known = text.split_once('/').and_then(|(kind, name)| {
            let name_checked = Name::new(name).ok()?;
            match kind {
                "site" if self.site_names.contains(name) => Some(BindingTarget::Site(name_checked)),
                "bucket" if self.bucket_names.contains(name) => {
                    Some(BindingTarget::Bucket(name_checked))
                }
                "service" if self.service_names.contains(name) => {
                    Some(BindingTarget::Service(name_checked))
                }
                _ => None,
            }
        });
        if known.is_some() {
            return known;
        }
        let message = format!("nothing is called `{}`", short(text));
        let help = self.suggest_target(owner, text);
        self.report(&to.span, wrong("unknown-target", message, help));
        None
    }

    fn suggest_target(&self, owner: &str, text: &str) -> String {
        // Comparing all with all would let a hostile text buy minutes.
        if self.findings.mistakes.len() > MISTAKES_MAX {
            return "write `site/NAME`, `service/NAME` or `bucket/NAME`".to_owned();
        }
        let sites = self.site_names.iter().map(|name| format!("site/{name}"));
        let services = self
            .service_names
            .iter()
            .map(|name| format!("service/{name}"));
        let buckets = self
            .bucket_names
            .iter()
            .map(|name| format!("bucket/{name}"));
        let every = sites.chain(services).chain(buckets);
        let all: Vec<String> = every.filter(|name| name != owner).collect();
        let names = || all.iter().map(String::as_str);
        // A bare name, or one under the wrong kind, is as good as a slip of the keys.
        let bare = text.rsplit('/').next().unwrap_or(text);
        let same = names().find(|name| name.rsplit('/').next() == Some(bare));
        same.or_else(|| nearest(text, names())).map_or_else(
            || format!("there is {}", list(names().take(10))),
            |near| format!("did you mean `{}`?", short(near)),
        )
    }
}
