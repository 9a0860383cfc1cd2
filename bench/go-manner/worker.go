package main

// The worker in the manner of the original: one consumer group, one message at a time, and its offset is committed whatever
// became of it.
//
//	go_manner worker
//
//	DATABASE_URL    PostgreSQL, as lib/pq takes it; the table is made where it is missing
//	KAFKA_BROKERS, KAFKA_TODO_TOPIC   as for the API
//	KAFKA_GROUP_ID  the consumer group; todo-workers when not set

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	_ "github.com/lib/pq"
	"github.com/segmentio/kafka-go"
)

const table = `CREATE TABLE IF NOT EXISTS todos (
	id VARCHAR(36) PRIMARY KEY, title TEXT NOT NULL, description TEXT, completed BOOLEAN DEFAULT FALSE,
	user_id VARCHAR(255) NOT NULL, created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
	updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP)`

func work() {
	database, err := sql.Open("postgres", os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	if _, err := database.Exec(table); err != nil {
		log.Fatal(err)
	}
	group := os.Getenv("KAFKA_GROUP_ID")
	if group == "" {
		group = "todo-workers"
	}
	brokers := strings.Split(os.Getenv("KAFKA_BROKERS"), ",")
	createTopic(kafka.TCP(brokers...), topicName())
	reader := kafka.NewReader(kafka.ReaderConfig{
		Brokers: brokers, Topic: topicName(), GroupID: group, StartOffset: kafka.FirstOffset, MaxWait: 100 * time.Millisecond,
	})
	// SIGTERM ends it between two messages: what it has applied is committed.
	stopped, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	fmt.Println("working for the group", group)
	for {
		message, err := reader.FetchMessage(stopped)
		if errors.Is(err, context.Canceled) {
			break
		}
		if err != nil {
			log.Println("fetch:", err)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		var asked command
		if err := json.Unmarshal(message.Value, &asked); err != nil {
			log.Println("a message that is no command:", err)
		} else if err := apply(database, asked); err != nil {
			log.Println("apply:", err)
		}
		if err := reader.CommitMessages(context.Background(), message); err != nil {
			log.Println("commit:", err)
		}
	}
	if err := reader.Close(); err != nil {
		log.Fatal(err)
	}
}

// apply changes one row. An empty text of an update keeps what the row has.
func apply(database *sql.DB, asked command) error {
	switch asked.Action {
	case "create":
		_, err := database.Exec(`INSERT INTO todos (id, title, description, completed, user_id, created_at, updated_at)
			VALUES ($1, $2, $3, FALSE, $4, $5, $5) ON CONFLICT (id) DO NOTHING`,
			asked.ID, asked.Title, asked.Description, asked.UserID, asked.RequestedAt)
		return err
	case "update":
		_, err := database.Exec(`UPDATE todos SET title = COALESCE(NULLIF($2, ''), title),
			description = COALESCE(NULLIF($3, ''), description), completed = COALESCE($4, completed), updated_at = $6
			WHERE id = $1 AND user_id = $5`,
			asked.ID, asked.Title, asked.Description, asked.Completed, asked.UserID, asked.RequestedAt)
		return err
	case "delete":
		_, err := database.Exec(`DELETE FROM todos WHERE id = $1 AND user_id = $2`, asked.ID, asked.UserID)
		return err
	}
	return fmt.Errorf("unknown action %q", asked.Action)
}
