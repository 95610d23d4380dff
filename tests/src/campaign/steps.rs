//! How many faults fell into each step of the work. A campaign that never hit a step says nothing about it, so a zero is a failure.

use std::collections::BTreeMap;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Steps {
    order: Vec<&'static str>,
    hits: BTreeMap<&'static str, u64>,
}

impl Steps {
    /// Every step there is.
    pub fn of(steps: &[&'static str]) -> Self {
        Self {
            order: steps.to_vec(),
            hits: steps.iter().map(|step| (*step, 0)).collect(),
        }
    }
    pub fn hit(&mut self, step: &'static str) {
        *self.hits.entry(step).or_default() += 1;
    }
    /// A step by its name, if it is one of these.
    pub fn named(&self, name: &str) -> Option<&'static str> {
        self.order.iter().find(|step| **step == name).copied()
    }
    pub fn hits(&self, step: &str) -> u64 {
        self.hits.get(step).copied().unwrap_or_default()
    }
    /// Steps that were not hit.
    pub fn missed(&self) -> Vec<&'static str> {
        self.order.iter().filter(|step| self.hits(step) == 0).copied().collect()
    }
    /// `name 12, name 3`.
    pub fn words(&self) -> String {
        let words: Vec<_> = self
            .order
            .iter()
            .map(|step| format!("{step} {}", self.hits(step)))
            .collect();
        words.join(", ")
    }
}
