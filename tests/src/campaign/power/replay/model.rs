//! What a file system owes after a power cut, and no more: a file's bytes as of the last fsync or fdatasync of that file; a name as of the last
//! fsync of its directory, and a new file's name with the fsync of the file itself (POSIX leaves that open; ext4, XFS and btrfs all do it).
//! Unlike ext4, which writes the names of others along with a file's sync, this keeps nothing that was not asked for: [`Variant::Nothing`].
//! The other variants keep a random part, or all, of the rest: of the bytes any pieces, of the names the first so many, as a journal would.

use crate::campaign::{Dice, Tried, power::Variant};
use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
};

pub type Inode = usize;

/// A directory, and a name in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    pub dir: Inode,
    pub name: String,
}

/// What happened to the tree, in the order in which it ended.
#[derive(Clone, Debug)]
pub enum Event {
    Make {
        place: Name,
        inode: Inode,
        is_dir: bool,
    },
    Move {
        inode: Inode,
        from: Name,
        to: Name,
    },
    Remove {
        place: Name,
    },
    Write {
        inode: Inode,
        offset: u64,
        data: Vec<u8>,
    },
    Resize {
        inode: Inode,
        length: u64,
    },
    /// What of `inode` had ended before the event `began` is on the medium.
    Sync {
        inode: Inode,
        began: usize,
    },
}

#[derive(Clone, Debug)]
enum Node {
    Dir(BTreeMap<String, Inode>),
    File(Vec<u8>),
}

/// Files and directories.
#[derive(Clone, Debug)]
pub struct Tree {
    nodes: HashMap<Inode, Node>,
    next: Inode,
}

impl Tree {
    pub const ROOT: Inode = 0;

    pub fn empty() -> Self {
        Self {
            nodes: HashMap::from([(Self::ROOT, Node::Dir(BTreeMap::new()))]),
            next: 1,
        }
    }

    /// What is in a directory; all of it counts as being on the medium.
    pub fn read(path: &Path) -> Tried<Self> {
        let mut tree = Self::empty();
        tree.read_into(Self::ROOT, path)?;
        Ok(tree)
    }

    fn read_into(&mut self, dir: Inode, path: &Path) -> Tried<()> {
        let mut names = BTreeMap::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let inode = self.fresh();
            names.insert(entry.file_name().to_string_lossy().into_owned(), inode);
            if entry.file_type()?.is_dir() {
                self.read_into(inode, &entry.path())?;
            } else {
                self.nodes.insert(inode, Node::File(fs::read(entry.path())?));
            }
        }
        self.nodes.insert(dir, Node::Dir(names));
        Ok(())
    }

    /// Writes it out as it is.
    pub fn write(&self, to: &Path) -> Tried<()> {
        fs::create_dir_all(to)?;
        self.write_dir(Self::ROOT, to)
    }

    fn write_dir(&self, dir: Inode, to: &Path) -> Tried<()> {
        let Some(Node::Dir(names)) = self.nodes.get(&dir) else {
            return Ok(());
        };
        for (name, inode) in names {
            let path = to.join(name);
            match self.nodes.get(inode) {
                Some(Node::Dir(_)) => {
                    fs::create_dir(&path)?;
                    self.write_dir(*inode, &path)?;
                }
                Some(Node::File(bytes)) => write_sparse(&path, bytes)?,
                None => {}
            }
        }
        Ok(())
    }

    pub const fn fresh(&mut self) -> Inode {
        self.next += 1;
        self.next - 1
    }

    pub fn find(&self, dir: Inode, name: &str) -> Option<Inode> {
        match self.nodes.get(&dir)? {
            Node::Dir(names) => names.get(name).copied(),
            Node::File(_) => None,
        }
    }

    pub fn at(&self, place: &Name) -> Option<Inode> {
        match place.name.as_str() {
            "" => Some(place.dir),
            name => self.find(place.dir, name),
        }
    }

    pub fn size(&self, inode: Inode) -> u64 {
        match self.nodes.get(&inode) {
            Some(Node::File(bytes)) => bytes.len() as u64,
            _ => 0,
        }
    }

    fn names(&mut self, dir: Inode) -> Option<&mut BTreeMap<String, Inode>> {
        match self.nodes.get_mut(&dir)? {
            Node::Dir(names) => Some(names),
            Node::File(_) => None,
        }
    }

    /// Makes it so. A name whose directory is not there, and bytes of a file that is not, have no effect.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Make { place, inode, .. } => {
                if let Some(names) = self.names(place.dir) {
                    names.insert(place.name.clone(), *inode);
                }
                self.make(event);
            }
            Event::Move { inode, from, to } => {
                if let Some(names) = self.names(from.dir)
                    && names.get(&from.name) == Some(inode)
                {
                    names.remove(&from.name);
                }
                if let Some(names) = self.names(to.dir) {
                    names.insert(to.name.clone(), *inode);
                }
            }
            Event::Remove { place } => {
                if let Some(names) = self.names(place.dir) {
                    names.remove(&place.name);
                }
            }
            Event::Write { inode, offset, data } => self.put(*inode, *offset, data),
            Event::Resize { inode, length } => {
                if let (Some(Node::File(bytes)), Ok(length)) = (self.nodes.get_mut(inode), usize::try_from(*length)) {
                    bytes.resize(length, 0);
                }
            }
            Event::Sync { .. } => {}
        }
    }

    /// A new file or directory, without its name.
    fn make(&mut self, event: &Event) {
        if let Event::Make { inode, is_dir, .. } = event {
            let node = if *is_dir {
                Node::Dir(BTreeMap::new())
            } else {
                Node::File(Vec::new())
            };
            self.nodes.entry(*inode).or_insert(node);
            self.next = self.next.max(inode + 1);
        }
    }

    fn put(&mut self, inode: Inode, offset: u64, data: &[u8]) {
        let (Some(Node::File(bytes)), Ok(from)) = (self.nodes.get_mut(&inode), usize::try_from(offset)) else {
            return;
        };
        let to = from + data.len();
        if bytes.len() < to {
            bytes.resize(to, 0);
        }
        if let Some(there) = bytes.get_mut(from..to) {
            there.copy_from_slice(data);
        }
    }
}

/// Pages of zeros are left out.
fn write_sparse(path: &Path, bytes: &[u8]) -> Tried<()> {
    const PAGE: usize = 4096;
    let file = File::create_new(path)?;
    file.set_len(bytes.len() as u64)?;
    for (nth, page) in bytes.chunks(PAGE).enumerate() {
        if page.iter().any(|byte| *byte != 0) {
            file.write_all_at(page, (nth * PAGE) as u64)?;
        }
    }
    Ok(())
}

/// Whether syncs are believed. Not believing them is the control.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Syncs {
    Keep,
    Lie,
}

/// What is owed after the first `events` have ended.
pub struct Owed<'a> {
    events: &'a [Event],
    synced: HashMap<Inode, usize>,
}

impl<'a> Owed<'a> {
    pub fn after(events: &'a [Event], syncs: Syncs) -> Self {
        let mut synced = HashMap::new();
        for event in events {
            if let Event::Sync { inode, began } = event
                && syncs == Syncs::Keep
            {
                let upto = synced.entry(*inode).or_insert(0);
                *upto = (*began).max(*upto);
            }
        }
        Self { events, synced }
    }

    fn owes(&self, nth: usize, event: &Event) -> bool {
        let synced = |inode: &Inode| self.synced.get(inode).is_some_and(|upto| nth < *upto);
        match event {
            Event::Make { place, inode, .. } => synced(&place.dir) || synced(inode),
            Event::Move { from, to, .. } => synced(&from.dir) || synced(&to.dir),
            Event::Remove { place } => synced(&place.dir),
            Event::Write { inode, .. } | Event::Resize { inode, .. } => synced(inode),
            Event::Sync { .. } => true,
        }
    }

    /// How many events may be lost.
    pub fn open(&self) -> u64 {
        let open = self
            .events
            .iter()
            .enumerate()
            .filter(|(nth, event)| !self.owes(*nth, event));
        open.count() as u64
    }

    /// What is there after the cut.
    pub fn tree(&self, base: &Tree, variant: Variant, dice: &mut Dice) -> Tree {
        let mut tree = base.clone();
        let all = self.events.len();
        // Names: so many of the first.
        let names = match variant {
            Variant::Nothing => 0,
            Variant::All => all,
            Variant::Pages | Variant::Sectors => usize::try_from(dice.between(0, all as u64)).unwrap_or(all),
        };
        for (nth, event) in self.events.iter().enumerate() {
            match event {
                _ if self.owes(nth, event) => tree.apply(event),
                Event::Write { inode, offset, data } => match variant.piece() {
                    None if variant == Variant::All => tree.apply(event),
                    None => {}
                    Some(piece) => {
                        for (offset, data) in pieces(*offset, data, piece) {
                            if dice.chance(50) {
                                tree.put(*inode, offset, data);
                            }
                        }
                    }
                },
                _ if nth < names => tree.apply(event),
                // Its name is lost, but a later one may be kept.
                _ => tree.make(event),
            }
        }
        tree
    }
}

/// A write in pieces that are whole on the medium.
fn pieces(offset: u64, data: &[u8], piece: usize) -> impl Iterator<Item = (u64, &[u8])> {
    let (mut offset, mut rest) = (offset, data);
    std::iter::from_fn(move || {
        let left = piece - usize::try_from(offset % piece as u64).ok()?;
        let (now, later) = rest.split_at(left.min(rest.len()));
        let at = offset;
        (offset, rest) = (offset + now.len() as u64, later);
        (!now.is_empty()).then_some((at, now))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: Inode = 1;

    fn name(name: &str) -> Name {
        Name {
            dir: Tree::ROOT,
            name: name.into(),
        }
    }
    fn make(at: &str) -> Event {
        Event::Make {
            place: name(at),
            inode: FILE,
            is_dir: false,
        }
    }
    fn write(text: &str) -> Event {
        Event::Write {
            inode: FILE,
            offset: 0,
            data: text.into(),
        }
    }
    fn sync(inode: Inode, began: usize) -> Event {
        Event::Sync { inode, began }
    }
    fn text(events: &[Event], variant: Variant, syncs: Syncs, at: &str) -> Option<String> {
        let tree = Owed::after(events, syncs).tree(&Tree::empty(), variant, &mut Dice::new(1));
        match tree.nodes.get(&tree.find(Tree::ROOT, at)?)? {
            Node::File(bytes) => Some(String::from_utf8(bytes.clone()).unwrap()),
            Node::Dir(_) => None,
        }
    }

    #[test]
    fn only_what_was_synced_is_owed() {
        use {Syncs::*, Variant::*};
        let made = [make("a"), write("one")];
        let synced = [make("a"), write("one"), sync(FILE, 2)];
        let again = [make("a"), write("one"), sync(FILE, 2), write("two")];
        let early = [make("a"), write("one"), write("two"), sync(FILE, 2)];
        let moved = |last: Event| {
            let to = Event::Move {
                inode: FILE,
                from: name("a"),
                to: name("b"),
            };
            [make("a"), write("one"), sync(FILE, 2), to, last]
        };
        for (events, variant, syncs, at, left) in [
            (&made[..], Nothing, Keep, "a", None),
            (&made, All, Keep, "a", Some("one")),
            (&synced, Nothing, Keep, "a", Some("one")),
            (&synced, Nothing, Lie, "a", None),
            (&again, Nothing, Keep, "a", Some("one")),
            (&again, All, Keep, "a", Some("two")),
            // The second write had not ended when the sync began.
            (&early, Nothing, Keep, "a", Some("one")),
            // A rename is owed when its directory is synced, not when the file is.
            (&moved(sync(FILE, 4)), Nothing, Keep, "b", None),
            (&moved(sync(FILE, 4)), Nothing, Keep, "a", Some("one")),
            (&moved(sync(Tree::ROOT, 4)), Nothing, Keep, "b", Some("one")),
            (&moved(sync(Tree::ROOT, 3)), Nothing, Keep, "b", None),
        ] {
            assert_eq!(
                text(events, variant, syncs, at).as_deref(),
                left,
                "{events:?} {variant:?} {syncs:?}"
            );
        }
    }

    #[test]
    fn pieces_begin_where_the_medium_cuts() {
        let data = [7; 1000];
        let cut: Vec<_> = pieces(500, &data, 512).map(|(at, piece)| (at, piece.len())).collect();
        assert_eq!(cut, [(500, 12), (512, 512), (1024, 476)]);
    }
}
