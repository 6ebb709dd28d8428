//! Decisions that bytes make.

/// Decisions that bytes make.
pub(super) struct Choices<'d>(pub(super) &'d [u8]);

impl<'d> Choices<'d> {
    pub(super) fn byte(&mut self) -> u8 {
        match self.0 {
            [first, rest @ ..] => {
                self.0 = rest;
                *first
            }
            [] => 0,
        }
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }

    pub(super) fn one<'o, T>(&mut self, of: &'o [T]) -> &'o T {
        let index = self.below(of.len());
        &of[index]
    }

    pub(super) fn some<T: Clone>(&mut self, of: &[T]) -> Vec<T> {
        let mask = self.byte();
        of.iter()
            .enumerate()
            .filter(|(index, _)| mask >> (index % 8) & 1 == 1)
            .map(|(_, item)| item.clone())
            .collect()
    }

    /// Up to the next byte that can stand in no header, or as many as are left.
    pub(super) fn text(&mut self) -> &'d [u8] {
        let end = self
            .0
            .iter()
            .position(|byte| matches!(byte, 0 | b'\n' | b'\r'));
        let (text, rest) = self.0.split_at(end.unwrap_or(self.0.len()));
        self.0 = rest.get(1..).unwrap_or_default();
        text
    }
}
