//! Where a volume's files are and how it is configured.
