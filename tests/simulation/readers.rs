//! Readers that fill the cache as `docs/cache.md` asks them to: a lease first, the row second, and
//! the fill only if the lease is still theirs.

use super::world::World;

/// A reader, between two of its steps.
#[derive(Clone, Debug, Default)]
pub(crate) enum Reader {
    #[default]
    Idle,
    Leased {
        draft: String,
        token: u64,
    },
    Read {
        draft: String,
        token: u64,
        images: String,
    },
}

impl Reader {
    /// Takes one step.
    pub(crate) fn step(&mut self, world: &mut World) {
        *self = match std::mem::take(self) {
            Reader::Idle => {
                let drafts: Vec<&String> = world.rows.keys().collect();
                let draft = drafts[world.chance.usize(..drafts.len())].clone();
                if world.cache.contains_key(&draft) || world.leases.contains_key(&draft) {
                    return;
                }
                let token = world.chance.u64(..);
                world.leases.insert(draft.clone(), token);
                Reader::Leased { draft, token }
            }
            Reader::Leased { draft, token } => {
                let images = world.rows[&draft].images.clone().unwrap_or_default();
                Reader::Read { draft, token, images }
            }
            Reader::Read { draft, token, images } => {
                if world.leases.get(&draft) == Some(&token) {
                    world.leases.remove(&draft);
                    world.cache.insert(draft, images);
                }
                Reader::Idle
            }
        }
    }
}

impl World {
    /// The time of a lease is up.
    pub(crate) fn expire_a_lease(&mut self) {
        if let Some(draft) = self.leases.keys().next().cloned() {
            self.leases.remove(&draft);
        }
    }
}
