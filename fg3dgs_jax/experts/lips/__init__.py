"""Networks that compare lips with sound: Wav2Lip's expert, SyncNet."""
