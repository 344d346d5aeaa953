//! What is asked of the catalog about a table.

pub(super) const TABLE_SQL: &str = r"
SELECT c.oid::int8, n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence::text,
       row_security_active(c.oid),
       EXISTS (SELECT FROM pg_catalog.pg_rewrite r WHERE r.ev_class = c.oid),
       c.relkind = 'r' AND EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhparent = c.oid),
       ARRAY(SELECT t.tgname::text FROM pg_catalog.pg_trigger t
             JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
             WHERE (t.tgrelid = c.oid OR t.tgparentid = 0 AND t.tgrelid IN (
                      SELECT relid FROM pg_catalog.pg_partition_tree(c.oid)))
               AND NOT t.tgisinternal AND t.tgenabled IN ('O', 'A')
               -- They look at nothing but the row.
               AND NOT (p.pronamespace = 'pg_catalog'::regnamespace AND p.proname IN (
                 'suppress_redundant_updates_trigger', 'tsvector_update_trigger',
                 'tsvector_update_trigger_column'))
             ORDER BY 1),
       ARRAY(SELECT DISTINCT p.proname::text FROM (
               SELECT x.refobjid AS id FROM pg_catalog.pg_attrdef d
               JOIN pg_catalog.pg_depend x ON x.classid = 'pg_catalog.pg_attrdef'::regclass
                    AND x.objid = d.oid AND x.refclassid = 'pg_catalog.pg_proc'::regclass
               WHERE d.adrelid = c.oid
               UNION ALL
               SELECT x.refobjid FROM pg_catalog.pg_constraint k
               JOIN pg_catalog.pg_depend x ON x.classid = 'pg_catalog.pg_constraint'::regclass
                    AND x.objid = k.oid AND x.refclassid = 'pg_catalog.pg_proc'::regclass
               WHERE k.conrelid = c.oid OR k.contypid IN (
                 SELECT atttypid FROM pg_catalog.pg_attribute WHERE attrelid = c.oid)
             ) f
             JOIN pg_catalog.pg_proc p ON p.oid = f.id
             JOIN pg_catalog.pg_language l ON l.oid = p.prolang
             WHERE p.provolatile = 'v' AND l.lanname NOT IN ('internal', 'c')
             UNION
             -- The system catalog's own are not recorded, but stand in the text.
             SELECT p.proname::text FROM pg_catalog.pg_attrdef d
             CROSS JOIN LATERAL regexp_matches(
               pg_catalog.pg_get_expr(d.adbin, d.adrelid), '([a-z0-9_]+)\(', 'g') call
             JOIN pg_catalog.pg_proc p ON p.proname = call[1]
                  AND p.pronamespace = 'pg_catalog'::regnamespace
             WHERE d.adrelid = c.oid AND p.provolatile = 'v' AND NOT p.proname = ANY($2)
             ORDER BY 1),
       (SELECT quote_ident(rn.nspname) || '.' || quote_ident(r.relname)
        FROM pg_catalog.pg_class r JOIN pg_catalog.pg_namespace rn ON rn.oid = r.relnamespace
        WHERE c.relispartition AND r.oid = pg_catalog.pg_partition_root(c.oid)),
       ARRAY(SELECT relid::oid::int8 FROM pg_catalog.pg_partition_tree(c.oid) WHERE isleaf),
       (SELECT CASE
                 WHEN p.relkind = 'f' THEN 'is a foreign table'
                 WHEN p.relpersistence <> 'p' THEN 'is unlogged or temporary'
                 WHEN EXISTS (SELECT FROM pg_catalog.pg_index i
                              JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
                              WHERE i.indrelid = p.oid AND NOT x.relispartition
                                AND (i.indisunique OR i.indisexclusion))
                   THEN 'has a unique index of its own'
                 WHEN EXISTS (SELECT FROM pg_catalog.pg_constraint k
                              WHERE k.contype = 'f' AND k.confrelid = p.oid AND k.conparentid = 0)
                   THEN 'is referenced by a foreign key of its own'
               END AS why
        FROM pg_catalog.pg_partition_tree(c.oid) t JOIN pg_catalog.pg_class p ON p.oid = t.relid
        WHERE t.relid <> c.oid ORDER BY why LIMIT 1)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = to_regclass($1)";

pub(super) const COLUMNS_SQL: &str = "
SELECT a.attname::text, a.atttypid::int8,
       quote_ident(tn.nspname) || '.' || quote_ident(t.typname),
       CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END::int8,
       CASE WHEN t.typtype = 'd' THEN b.typtype ELSE t.typtype END::text,
       a.attgenerated::text, a.attidentity::text, a.atttypmod,
       coalesce(l.collisdeterministic, true),
       k.needs_text OR k.has_xml,
       k.has_binary_form,
       k.has_xml AND coalesce(b.oid, t.oid) <> 142 AND t.oid <> 143
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
JOIN pg_catalog.pg_namespace tn ON tn.oid = t.typnamespace
LEFT JOIN pg_catalog.pg_type b ON b.oid = t.typbasetype
LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation
CROSS JOIN LATERAL (
  WITH RECURSIVE parts(id) AS (
    SELECT a.atttypid
    UNION
    SELECT x.id FROM parts JOIN pg_catalog.pg_type p ON p.oid = parts.id
    CROSS JOIN LATERAL (
      SELECT p.typelem WHERE p.typcategory = 'A' AND p.typelem <> 0
      UNION ALL
      SELECT p.typbasetype WHERE p.typtype = 'd'
      UNION ALL
      SELECT f.atttypid FROM pg_catalog.pg_attribute f
      WHERE p.typtype = 'c' AND f.attrelid = p.typrelid AND f.attnum > 0 AND NOT f.attisdropped
      UNION ALL
      SELECT r.rngsubtype FROM pg_catalog.pg_range r
      WHERE p.oid IN (r.rngtypid, r.rngmultitypid)
    ) x(id)
  )
  SELECT bool_or(y.typtype = 'm' OR y.oid IN (22, 30)) AS needs_text, bool_or(y.oid = 142) AS has_xml,
         bool_and(y.typsend <> 0 AND y.typreceive <> 0
                  AND y.typreceive::text !~ '^(pg|brin)_.*_recv$'
                  OR y.typname IN ('pg_lsn', 'pg_snapshot')) AS has_binary_form
  FROM parts JOIN pg_catalog.pg_type y ON y.oid = parts.id
) k
WHERE a.attrelid = $1::int8::oid AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum";

pub(super) const INDEXES_SQL: &str = "
SELECT x.relname::text, i.indisprimary,
       ARRAY(SELECT a.attname::text
             FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(num, ord)
             JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.num
             WHERE k.ord <= i.indnkeyatts ORDER BY k.ord),
       i.indexprs IS NOT NULL OR i.indisexclusion
       OR EXISTS (SELECT FROM unnest(i.indcollation) u(id)
                  JOIN pg_catalog.pg_collation l ON l.oid = u.id WHERE NOT l.collisdeterministic)
       OR EXISTS (SELECT FROM unnest(i.indclass) u(id)
                  JOIN pg_catalog.pg_opclass o ON o.oid = u.id WHERE NOT o.opcdefault),
       coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::boolean, false)
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
WHERE i.indrelid = $1::int8::oid AND (i.indisunique OR i.indisexclusion)
ORDER BY x.relname";

pub(super) const INCOMING_SQL: &str = "
SELECT k.conname::text, quote_ident(n.nspname) || '.' || quote_ident(c.relname),
       ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY u(num, ord)
             JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.num
             ORDER BY u.ord),
       ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY u(num, ord)
             JOIN pg_catalog.pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.num
             ORDER BY u.ord),
       k.confdeltype::text, k.confupdtype::text
FROM pg_catalog.pg_constraint k
JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE k.contype = 'f' AND k.confrelid = $1::int8::oid
ORDER BY k.conname";
