SELECT onceward_enqueue('warehouse', $1, $2::text, path => '/picks', subject => $3)
