"""The SQL of the keys of persons. A batch of any size is one statement over arrays."""

# The second part does not see what the first one inserts, or what other transactions have inserted since the
# statement began.
OBTAIN_KEYS = """
WITH made AS (
  INSERT INTO subject_keys (subject, id, wrapped_by, wrapped)
  SELECT subject, id, wrapped_by, wrapped FROM unnest($1::text[], $2::bytea[], $3::text[], $4::bytea[])
    AS t(subject, id, wrapped_by, wrapped) ORDER BY subject
  ON CONFLICT (subject) DO NOTHING RETURNING subject, id, wrapped_by, wrapped
)
SELECT subject, id, wrapped_by, wrapped FROM made
UNION ALL SELECT subject, id, wrapped_by, wrapped FROM subject_keys WHERE subject = ANY($1::text[])
"""
