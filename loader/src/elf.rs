//! ELF vmlinux, entered as the PVH protocol says: the note `XEN_ELFNOTE_PHYS32_ENTRY` holds a
//! physical, 32-bit entry.
//!
//! Segments go to their physical addresses (`p_paddr`), and everything is checked before the first
//! byte is written: each within the file, in free RAM above 1 MiB, disjoint from the others.
//! `e_entry` is not used, so not judged.
//!
//! What it does not do: relocation, section headers, symbols, clearing the part of a segment that
//! is not in the file (guest memory is fresh, it reads as zero; Linux clears its bss itself).

use std::ops::Range;

use linux_loader::elf::{
    EI_CLASS, EI_DATA, ELFCLASS64, ELFDATA2LSB, EM_X86_64, ET_DYN, ET_EXEC, Elf64_Ehdr, Elf64_Phdr,
    PT_LOAD, PT_NOTE,
};
use vm_memory::ByteValued;

use crate::error::ImageError;
use crate::file::ImageFile;
use crate::layout::FOUR_GIB;
use crate::memory_map::MemoryMap;

/// Linux has five segments. The bound keeps the work small whatever the file says.
const MAX_SEGMENTS: usize = 128;
/// Linux' notes are 136 bytes.
const MAX_NOTES: u64 = 64 << 10;
/// "Xen\0" owns the note.
const NOTE_NAME: &[u8] = b"Xen\0";
const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;

/// An ELF kernel whose headers are sound.
#[derive(Debug)]
pub(crate) struct Elf {
    pub(crate) segments: Vec<Segment>,
    /// Physical address of the first instruction.
    pub(crate) entry: u64,
}

/// A loadable segment.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) file: Range<u64>,
    pub(crate) memory: Range<u64>,
}

impl Elf {
    /// Checks the headers and finds the entry. `head` is the beginning of the file.
    pub(crate) fn parse(file: &ImageFile, head: &[u8]) -> Result<Self, ImageError> {
        file.check_extent("the ELF header", 0, size_of::<Elf64_Ehdr>() as u64)?;
        let header: Elf64_Ehdr = decode(head);
        check_header(&header)?;
        let entry_size = size_of::<Elf64_Phdr>();
        let table = file.read(
            "the program headers",
            header.e_phoff,
            usize::from(header.e_phnum) * entry_size,
        )?;
        let mut segments = Vec::new();
        let mut entry = None;
        for header in table.chunks_exact(entry_size).map(decode::<Elf64_Phdr>) {
            match header.p_type {
                PT_LOAD if header.p_memsz > 0 => segments.push(Segment::new(file, &header)?),
                PT_NOTE if entry.is_none() => entry = notes_entry(file, &header)?,
                _ => {}
            }
        }
        let entry = entry.ok_or(ImageError::NoPvhNote)?;
        if !segments
            .iter()
            .any(|segment| segment.code().contains(&entry))
        {
            let rule = "it is outside of what the file's segments load";
            return Err(ImageError::Field {
                field: "XEN_ELFNOTE_PHYS32_ENTRY",
                value: entry,
                rule,
            });
        }
        Ok(Elf { segments, entry })
    }

    /// Claims the segments' addresses, and says which the kernel takes in all.
    pub(crate) fn place(&self, map: &mut MemoryMap) -> Result<Range<u64>, ImageError> {
        let (mut start, mut end) = (u64::MAX, 0);
        for segment in &self.segments {
            map.take("an ELF segment", &segment.memory)?;
            start = start.min(segment.memory.start);
            end = end.max(segment.memory.end);
        }
        Ok(start..end)
    }
}

impl Segment {
    fn new(file: &ImageFile, header: &Elf64_Phdr) -> Result<Self, ImageError> {
        if header.p_filesz > header.p_memsz {
            let (value, limit) = (header.p_filesz, header.p_memsz);
            return Err(ImageError::Limit {
                field: "p_filesz",
                value,
                limit,
                limit_is: "p_memsz",
            });
        }
        file.check_extent("an ELF segment", header.p_offset, header.p_filesz)?;
        let Some(end) = header.p_paddr.checked_add(header.p_memsz) else {
            return Err(field(
                "p_memsz",
                header.p_memsz,
                "the segment passes the end of the address space",
            ));
        };
        // The file's end does not overflow: it was just found to be within the file.
        let file = header.p_offset..header.p_offset + header.p_filesz;
        Ok(Segment {
            file,
            memory: header.p_paddr..end,
        })
    }

    /// The addresses that get bytes from the file.
    fn code(&self) -> Range<u64> {
        self.memory.start..self.memory.start + (self.file.end - self.file.start)
    }
}

fn field(field: &'static str, value: impl Into<u64>, rule: &'static str) -> ImageError {
    ImageError::Field {
        field,
        value: value.into(),
        rule,
    }
}

/// Missing bytes count as 0; callers have checked that there are none.
fn decode<T: ByteValued + Default>(bytes: &[u8]) -> T {
    let mut value = T::default();
    for (to, from) in value.as_mut_slice().iter_mut().zip(bytes) {
        *to = *from;
    }
    value
}

fn check_header(header: &Elf64_Ehdr) -> Result<(), ImageError> {
    let ident = |index: usize| header.e_ident.get(index).copied().unwrap_or_default();
    if ident(EI_CLASS) != ELFCLASS64 {
        return Err(field("EI_CLASS", ident(EI_CLASS), "not a 64-bit ELF file"));
    }
    if ident(EI_DATA) != ELFDATA2LSB {
        return Err(field(
            "EI_DATA",
            ident(EI_DATA),
            "not a little-endian ELF file",
        ));
    }
    if header.e_machine != EM_X86_64 {
        return Err(field("e_machine", header.e_machine, "not for x86-64"));
    }
    if !matches!(header.e_type, ET_EXEC | ET_DYN) {
        return Err(field(
            "e_type",
            header.e_type,
            "not an executable (an object file or a core dump?)",
        ));
    }
    if header.e_phoff < size_of::<Elf64_Ehdr>() as u64 {
        return Err(field(
            "e_phoff",
            header.e_phoff,
            "the program headers cannot be within the ELF header",
        ));
    }
    if usize::from(header.e_phentsize) != size_of::<Elf64_Phdr>() {
        return Err(field(
            "e_phentsize",
            header.e_phentsize,
            "a program header has 0x38 bytes",
        ));
    }
    if !(1..=MAX_SEGMENTS).contains(&usize::from(header.e_phnum)) {
        return Err(field(
            "e_phnum",
            header.e_phnum,
            "a kernel has 1 to 0x80 program headers",
        ));
    }
    Ok(())
}

/// The PVH entry, if it is in this note segment.
fn notes_entry(file: &ImageFile, header: &Elf64_Phdr) -> Result<Option<u64>, ImageError> {
    if header.p_filesz > MAX_NOTES {
        let field = "p_filesz of PT_NOTE";
        return Err(ImageError::Limit {
            field,
            value: header.p_filesz,
            limit: MAX_NOTES,
            limit_is: "for notes",
        });
    }
    let notes = file.read(
        "an ELF note segment",
        header.p_offset,
        header.p_filesz as usize,
    )?;
    // "p_align is 4 or 8"; other values occur and mean 4.
    find_entry(&notes, if header.p_align == 8 { 8 } else { 4 })
}

/// Walks notes: sizes of name and descriptor, type, name, descriptor, both padded. A note that does
/// not fit ends the walk.
fn find_entry(mut notes: &[u8], align: usize) -> Result<Option<u64>, ImageError> {
    while let Some((note, rest)) = split_note(notes, align) {
        if note.kind == XEN_ELFNOTE_PHYS32_ENTRY && note.name == NOTE_NAME {
            let entry = match *note.descriptor {
                [a, b, c, d] => u64::from(u32::from_le_bytes([a, b, c, d])),
                [a, b, c, d, e, f, g, h] => u64::from_le_bytes([a, b, c, d, e, f, g, h]),
                _ => {
                    return Err(field(
                        "n_descsz",
                        note.descriptor.len() as u64,
                        "the PVH entry has 4 or 8 bytes",
                    ));
                }
            };
            if entry == 0 || entry >= FOUR_GIB {
                return Err(field(
                    "XEN_ELFNOTE_PHYS32_ENTRY",
                    entry,
                    "the entry must be a 32-bit address and not 0",
                ));
            }
            return Ok(Some(entry));
        }
        notes = rest;
    }
    Ok(None)
}

struct Note<'a> {
    kind: u32,
    name: &'a [u8],
    descriptor: &'a [u8],
}

fn split_note(notes: &[u8], align: usize) -> Option<(Note<'_>, &[u8])> {
    const HEADER: usize = 12;
    let word = |at: usize| Some(u32::from_le_bytes(*notes.get(at..)?.first_chunk()?));
    let (name_size, descriptor_size, kind) = (word(0)? as usize, word(4)? as usize, word(8)?);
    let name_end = HEADER.checked_add(name_size)?;
    let descriptor_start = name_end.checked_next_multiple_of(align)?;
    let descriptor_end = descriptor_start.checked_add(descriptor_size)?;
    let note = Note {
        kind,
        name: notes.get(HEADER..name_end)?,
        descriptor: notes.get(descriptor_start..descriptor_end)?,
    };
    let next = descriptor_end.checked_next_multiple_of(align)?;
    Some((note, notes.get(next..).unwrap_or_default()))
}

#[cfg(test)]
mod tests;
