//! The two kernel formats behind one type: which it is, where it goes, how it is entered.

use std::ops::Range;

use vm_memory::GuestMemoryBackend;

use crate::bzimage::{BzImage, InitrdLimits};
use crate::elf::Elf;
use crate::error::{Error, ImageError, Role};
use crate::file::ImageFile;
use crate::format::{self, Format};
use crate::layout::{COMMAND_LINE, FOUR_GIB};
use crate::memory_map::MemoryMap;
use crate::registers::Registers;
use crate::zero_page::{self, Facts};
use crate::{Source, cpu, pvh};

/// How much is read at first: the boot sector and all of Linux's setup code, mostly.
const FIRST_READ: u64 = 16 << 10;

/// A kernel file whose headers are sound.
#[derive(Debug)]
pub(crate) struct Kernel {
    file: ImageFile,
    image: Image,
}

#[derive(Debug)]
enum Image {
    BzImage(BzImage),
    Elf(Elf),
}

impl Kernel {
    pub(crate) fn open(source: &Source) -> Result<Self, Error> {
        let file = ImageFile::open(Role::Kernel, source)?;
        match Image::parse(&file) {
            Ok(image) => Ok(Kernel { file, image }),
            Err(error) => Err(file.error(error)),
        }
    }

    /// Without the terminating NUL.
    pub(crate) fn cmdline_limit(&self) -> u64 {
        let room = COMMAND_LINE.end - COMMAND_LINE.start - 1;
        match &self.image {
            Image::BzImage(image) => room.min(u64::from(image.header.cmdline_size)),
            Image::Elf(_) => room.min(pvh::COMMAND_LINE_LIMIT),
        }
    }

    pub(crate) fn version(&self) -> Option<String> {
        match &self.image {
            Image::BzImage(image) => image.version.clone(),
            Image::Elf(_) => None,
        }
    }

    pub(crate) fn place(&self, map: &mut MemoryMap) -> Result<Range<u64>, Error> {
        let place = match &self.image {
            Image::BzImage(image) => image.place(map),
            Image::Elf(image) => image.place(map),
        };
        place.map_err(|error| self.file.error(error))
    }

    pub(crate) fn initrd_limits(&self) -> InitrdLimits {
        match &self.image {
            Image::BzImage(image) => image.initrd_limits(),
            // Linux takes the module's address and size as 32-bit numbers.
            Image::Elf(_) => InitrdLimits {
                below: FOUR_GIB,
                above_4g: false,
            },
        }
    }

    pub(crate) fn read_into<M: GuestMemoryBackend>(
        &self,
        memory: &M,
        place: &Range<u64>,
    ) -> Result<(), Error> {
        let read = |file: &Range<u64>, address| {
            let result = self
                .file
                .read_into(file.start, file.end - file.start, memory, address);
            result.map_err(|error| self.file.error(error))
        };
        match &self.image {
            Image::BzImage(image) => read(&image.code, place.start),
            Image::Elf(image) => image
                .segments
                .iter()
                .try_for_each(|s| read(&s.file, s.memory.start)),
        }
    }

    pub(crate) fn registers<M: GuestMemoryBackend>(
        &self,
        memory: &M,
        place: &Range<u64>,
        facts: &Facts<'_>,
    ) -> Result<Registers, Error> {
        match &self.image {
            Image::BzImage(image) => {
                zero_page::write(memory, &image.header, facts)?;
                cpu::long_mode(memory, image.entry(place.start), facts.initrd.as_ref())
            }
            Image::Elf(image) => {
                pvh::write(memory, facts)?;
                cpu::protected_mode(memory, image.entry)
            }
        }
    }
}

impl Image {
    fn parse(file: &ImageFile) -> Result<Self, ImageError> {
        let head = file.read("the header", 0, file.len.min(FIRST_READ) as usize)?;
        match format::detect(&head)? {
            Format::BzImage => BzImage::parse(file, head).map(Image::BzImage),
            Format::Elf => Elf::parse(file, &head).map(Image::Elf),
        }
    }
}
