//! The lake's interface for the run loop and upkeep. A simulation implements it with a model.

use super::{
    ClickRows, EncodedFile, EpochProjection, Epochs, Keep, Lake, LakeProgress, RollUp, TableEpochs, Tokens, Vacuumed,
    encode_clicks, encode_dead_letters,
};
use adtally_model::{DeadLetter, EpochNumber, Minute, MinuteCounts, Result};
use async_trait::async_trait;
use futures::future::BoxFuture;
use hashbrown::HashSet;

/// Stores staged files and projected epochs. The methods of the same names of [`Lake`] document what each guarantees.
#[async_trait]
pub trait LakeStore: Send + Sync {
    /// Encodes an epoch's files, named by partition and number, without I/O. A random `file_token` makes names unique.
    ///
    /// # Errors
    /// Internal when rows cannot be encoded.
    fn encode(
        &self,
        clicks: &[ClickRows<'_>],
        letters: &[DeadLetter],
        of: (u32, EpochNumber),
        file_token: u128,
    ) -> Result<Vec<EncodedFile>>;

    /// As [`Lake::stage`].
    ///
    /// # Errors
    /// As [`Lake::stage`].
    async fn stage(&self, files: &[EncodedFile]) -> Result<()>;

    /// As [`Lake::held`].
    ///
    /// # Errors
    /// As [`Lake::held`].
    async fn held(&self, log_id: u128, partition: u32) -> Result<TableEpochs>;

    /// As [`Lake::project`].
    ///
    /// # Errors
    /// As [`Lake::project`].
    async fn project(&self, epochs: &[EpochProjection], file_token: u128) -> Result<()>;

    /// The counts of the minutes `[from, to)` in the epochs up to `cut`, minutes ascending.
    ///
    /// # Errors
    /// As [`Lake::counts`].
    async fn minute_counts(&self, from: Minute, to: Minute, cut: &Epochs) -> Result<Vec<MinuteCounts>>;

    /// As [`Lake::roll_up`].
    ///
    /// # Errors
    /// As [`Lake::roll_up`].
    async fn roll_up(&self, roll_up: RollUp, reached: &LakeProgress, tokens: Tokens<'_>) -> Result<bool>;

    /// As [`Lake::retain`].
    ///
    /// # Errors
    /// As [`Lake::retain`].
    async fn retain(&self, keep: &Keep, reached: &LakeProgress) -> Result<u64>;

    /// As [`Lake::compact`].
    ///
    /// # Errors
    /// As [`Lake::compact`].
    async fn compact(&self, reached: &LakeProgress, tokens: Tokens<'_>) -> Result<Option<u64>>;

    /// As [`Lake::vacuum`].
    ///
    /// # Errors
    /// As [`Lake::vacuum`].
    async fn vacuum(&self, reached: &LakeProgress, named: BoxFuture<'_, Result<HashSet<String>>>) -> Result<Vacuumed>;
}

#[async_trait]
impl LakeStore for Lake {
    fn encode(
        &self,
        clicks: &[ClickRows<'_>],
        letters: &[DeadLetter],
        (partition, epoch): (u32, EpochNumber),
        file_token: u128,
    ) -> Result<Vec<EncodedFile>> {
        let mut files = encode_clicks(clicks, partition, epoch, file_token)?;
        files.extend(encode_dead_letters(letters, partition, epoch, file_token)?);
        Ok(files)
    }

    async fn stage(&self, files: &[EncodedFile]) -> Result<()> {
        Lake::stage(self, files).await
    }

    async fn held(&self, log_id: u128, partition: u32) -> Result<TableEpochs> {
        Lake::held(self, log_id, partition).await
    }

    async fn project(&self, epochs: &[EpochProjection], file_token: u128) -> Result<()> {
        Lake::project(self, epochs, file_token).await
    }

    async fn minute_counts(&self, from: Minute, to: Minute, cut: &Epochs) -> Result<Vec<MinuteCounts>> {
        Ok(self.counts(from, to, Some(cut)).await?.minutes)
    }

    async fn roll_up(&self, roll_up: RollUp, reached: &LakeProgress, tokens: Tokens<'_>) -> Result<bool> {
        Lake::roll_up(self, roll_up, reached, tokens).await
    }

    async fn retain(&self, keep: &Keep, reached: &LakeProgress) -> Result<u64> {
        Lake::retain(self, keep, reached).await
    }

    async fn compact(&self, reached: &LakeProgress, tokens: Tokens<'_>) -> Result<Option<u64>> {
        Lake::compact(self, reached, tokens).await
    }

    async fn vacuum(&self, reached: &LakeProgress, named: BoxFuture<'_, Result<HashSet<String>>>) -> Result<Vacuumed> {
        Lake::vacuum(self, reached, named).await
    }
}
