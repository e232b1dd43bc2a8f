CREATE TABLE repmgr.nodes (
    node_id          integer PRIMARY KEY,
    upstream_node_id integer REFERENCES repmgr.nodes DEFERRABLE,
    active           boolean NOT NULL DEFAULT true,
    node_name        text NOT NULL,
    type             text NOT NULL CHECK (type IN ('primary', 'standby', 'witness', 'bdr')),
    location         text NOT NULL DEFAULT 'default',
    priority         integer NOT NULL DEFAULT 100,
    conninfo         text NOT NULL,
    repluser         varchar(63) NOT NULL,
    slot_name        text,
    config_file      text NOT NULL
);

CREATE TABLE repmgr.events (
    node_id         integer NOT NULL,
    event           text NOT NULL,
    successful      boolean NOT NULL DEFAULT true,
    event_timestamp timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    details         text
);

CREATE VIEW repmgr.show_nodes AS
    SELECT n.node_id, n.node_name, n.active, n.upstream_node_id, u.node_name AS upstream_node_name,
           n.type, n.priority, n.conninfo
      FROM repmgr.nodes n LEFT JOIN repmgr.nodes u ON u.node_id = n.upstream_node_id;

SELECT pg_catalog.pg_extension_config_dump('repmgr.nodes', '');
SELECT pg_catalog.pg_extension_config_dump('repmgr.events', '');
