-- A value sealed with the key file, by which a node knows at start whether its key file is that of this store. None in
-- an installation from before: the first start that opens the secrets there are writes it.
ALTER TABLE installation ADD COLUMN key_check BLOB;
