"""Tables whose rows are a record: triggers refuse their UPDATE, DELETE and TRUNCATE to every user.

The rights of the roles refuse them to the processes already; the triggers refuse them to the owner and to
superusers, who have to drop or disable a trigger first. They fire for each statement of these three kinds, so
that an INSERT costs what it did. A partition needs a trigger of its own: statements may name it directly.
"""

FUNCTION = """
CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF TG_OP = 'DELETE' AND current_user = ANY (TG_ARGV) THEN RETURN NULL; END IF;
  RAISE EXCEPTION '% of the table % is refused: its rows are a record', TG_OP, TG_TABLE_NAME
    USING ERRCODE = 'insufficient_privilege';
END $$
"""
REVOKE = "REVOKE ALL ON FUNCTION refuse_change FROM PUBLIC"
TRIGGER = """
CREATE TRIGGER refuse_change BEFORE {operations} ON {table}
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change({remover})
"""
CHANGES = "UPDATE OR DELETE OR TRUNCATE"


def refuse_changes(table: str, *, operations: str = CHANGES, remover: str = "") -> str:
    """Return the statement that protects a table.

    Args:
        table: its name.
        operations: those that are refused.
        remover: a role that may nevertheless delete rows, while a session acts as it.
    """
    argument = f"'{remover}'" if remover else ""
    return TRIGGER.format(operations=operations, table=table, remover=argument)
