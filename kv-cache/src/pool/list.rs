//! Doubly linked lists of blocks that live in one array of links: no allocation, every step O(1).

use crate::BlockId;

/// No block.
const NIL: u32 = u32::MAX;

/// The links of all blocks of a pool. A block is in at most one [`List`] at a time.
pub(super) struct Links(Box<[Link]>);

/// A list's ends; its links are in [`Links`].
pub(super) struct List {
    head: u32,
    tail: u32,
    len: u32,
}

#[derive(Clone, Copy)]
struct Link {
    prev: u32,
    next: u32,
}

// === impl Links ===

impl Links {
    pub(super) fn new(blocks: u32) -> Self {
        Self(vec![Link { prev: NIL, next: NIL }; blocks as usize].into())
    }

    fn at(&mut self, index: u32) -> &mut Link {
        &mut self.0[index as usize]
    }
}

// === impl List ===

impl List {
    pub(super) fn new() -> Self {
        Self { head: NIL, tail: NIL, len: 0 }
    }

    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// The block that [`List::pop_front`] would take.
    pub(super) fn first(&self) -> Option<BlockId> {
        (self.head != NIL).then_some(BlockId(self.head))
    }

    /// The block behind `block`, which must be in this list.
    pub(super) fn after(&self, links: &Links, block: BlockId) -> Option<BlockId> {
        let next = links.0[block.index()].next;
        (next != NIL).then_some(BlockId(next))
    }

    pub(super) fn push_front(&mut self, links: &mut Links, block: BlockId) {
        *links.at(block.0) = Link { prev: NIL, next: self.head };
        match self.head {
            NIL => self.tail = block.0,
            head => links.at(head).prev = block.0,
        }
        self.head = block.0;
        self.len += 1;
    }

    pub(super) fn push_back(&mut self, links: &mut Links, block: BlockId) {
        *links.at(block.0) = Link { prev: self.tail, next: NIL };
        match self.tail {
            NIL => self.head = block.0,
            tail => links.at(tail).next = block.0,
        }
        self.tail = block.0;
        self.len += 1;
    }

    pub(super) fn pop_front(&mut self, links: &mut Links) -> Option<BlockId> {
        let head = self.first()?;
        self.remove(links, head);
        Some(head)
    }

    /// Takes `block`, which must be in this list, out of it.
    pub(super) fn remove(&mut self, links: &mut Links, block: BlockId) {
        let Link { prev, next } = *links.at(block.0);
        match prev {
            NIL => self.head = next,
            prev => links.at(prev).next = next,
        }
        match next {
            NIL => self.tail = prev,
            next => links.at(next).prev = prev,
        }
        self.len -= 1;
    }

    /// The blocks, front to back.
    pub(super) fn iter<'a>(&self, links: &'a Links) -> impl Iterator<Item = BlockId> + 'a {
        let mut at = self.head;
        std::iter::from_fn(move || {
            let block = (at != NIL).then_some(BlockId(at))?;
            at = links.0[block.index()].next;
            Some(block)
        })
    }
}
