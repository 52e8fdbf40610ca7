//! A local session's message to another domain: onto the stream that leads there, with the copies and the record of the
//! sender's own account.

use std::sync::Arc;

use moim_wire::xml::{Element, Str};

use super::super::parcel::Parcel;
use super::super::shared::Shared;
use super::super::traits::Traits;
use super::super::ways::domain_of;
use super::{split, Sorter};

impl Sorter {
    /// Sends a message of a local session out, if there is a way; gives it back otherwise.
    pub(super) fn sort_out(&mut self, message: Element, traits: Traits, shared: &Shared) -> Result<usize, Element> {
        let (Some(to), Some(from)) = (message.attr("to"), message.attr("from")) else {
            return Err(message);
        };
        let Some(sid) = domain_of(from).and_then(|local| shared.ways.find(local, to)) else {
            return Err(message);
        };
        let (bare, resource) = split(from);
        self.found.clear();
        let keeps = shared.routes.look(bare, |account| {
            if traits.copied_sent {
                account.copies(resource, &mut self.found);
            }
            account.archive
        });
        let keeps = keeps.unwrap_or(false) && traits.archived;
        let bare = Str::value(bare);
        let message = Arc::new(message);
        let shown = if keeps {
            let number = self.record(&message, vec![bare.clone()], shared);
            super::with_id(&message, &bare, number, shared)
        } else {
            message.clone()
        };
        self.deliveries.push((sid, Parcel::sole(message)));
        if !self.found.is_empty() {
            self.copy("sent", &bare, &shown, 0..self.found.len());
        }
        Ok(1)
    }
}
