//! As much of ELF as tells a static program from another one.

/// Whether an ELF file names no program loader: has no PT_INTERP header.
pub fn is_static(elf: &[u8]) -> bool {
    let number = |at: usize, length: usize| {
        let bytes = elf.get(at..at + length)?;
        Some(
            bytes
                .iter()
                .rev()
                .fold(0usize, |n, byte| n << 8 | usize::from(*byte)),
        )
    };
    let look = || {
        let (start, size, count) = (number(0x20, 8)?, number(0x36, 2)?, number(0x38, 2)?);
        // 64 bits and little-endian, as all that we are built for.
        (elf.get(..6)? == b"\x7fELF\x02\x01").then_some(())?;
        let types: Option<Vec<_>> = (0..count).map(|i| number(start + i * size, 4)).collect();
        Some(!types?.contains(&3))
    };
    look().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_a_loader_is_not_static() {
        let mut elf = vec![0; 0x40 + 2 * 56];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[0x20] = 0x40;
        elf[0x36] = 56;
        elf[0x38] = 2;
        elf[0x40] = 1;
        elf[0x40 + 56] = 2;
        assert!(is_static(&elf));
        elf[0x40 + 56] = 3;
        assert!(!is_static(&elf));
        assert!(!is_static(&elf[..0x50]));
        assert!(!is_static(b"#!/bin/sh\n"));
    }
}
